"""Writing series to disk, and what a scan of them found."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from osler.ingest.facts import Pose
from osler.ingest.scan import read_frames, scan
from osler.ingest.series import Series
from osler.ingest.stack import FrameRef


def write_all(folder: Path, objects: Iterable[bytes], name: str = "{}.dcm") -> Path:
    """One file an object; the names are in another order than the slices."""
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(objects):
        (folder / name.format(f"{number * 37 % 101:03}-{number}")).write_bytes(data)
    return folder


def zipped(folder: Path, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The files of a folder, as a zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return file.getvalue()


def all_series(path: Path) -> list[Series]:
    return [series for study in scan(path).studies for series in study.series]


def only_series(path: Path) -> Series:
    (series,) = all_series(path)
    return series


def pose_of(frame: FrameRef) -> Pose:
    assert frame.facts.pose is not None
    return frame.facts.pose


def kinds(series: Series) -> list[str]:
    return [finding.kind for finding in series.findings]


def values_of(series: Series) -> NDArray[np.float32]:
    return np.stack([np.asarray(image.values, np.float32) for image in read_frames(series.frames)])
