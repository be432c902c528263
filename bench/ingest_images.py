"""DICOM files to what a model is given, beside what others do; called by `bench/ingest.py`."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.data import get_testdata_file

from osler.ingest.read import read_image
from osler.ingest.scan import scan
from osler.preprocess.image_settings import ImageSettings
from osler.preprocess.pixels import PixelMaker
from osler.preprocess.slices import read_shown, shown_of
from osler.preprocess.sources import ImageSource
from osler.testing.dicom import make_dicom
from osler.testing.series import Slice, make_series, slices

SIDE_PX = 896
SERIES_SLICES, SHOWN_SLICES = 300, 85
AT_LEAST = {"uncompressed": 2.0, "jpeg-2000": 2.0, "series": 2.0}
_PEER = Path(__file__).with_name("peer_ingest.py")
_SYNTAXES = {
    "uncompressed": uid.ExplicitVRLittleEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg-baseline": uid.JPEGBaseline8Bit,
    "jpeg-lossless": uid.JPEGLosslessSV1,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg-2000": uid.JPEG2000Lossless,
    "jpeg-2000-lossy": uid.JPEG2000,
    "htj2k": uid.HTJ2KLossless,
}
# What rounding to eight bits before the resizing, or after it, or not at all, may make of a pixel.
_TOLERANCE = {"pydicom": 1e-5, "monai": 0.03}

Pixels = NDArray[np.float32]
Stored = NDArray[Any]
Jobs = dict[str, dict[str, Any]]


def noisy_slices(count: int) -> list[Slice]:
    """A body of 512 x 512 pixels with as much noise as a CT of it would have."""
    draw = np.random.default_rng(0)
    return [
        replace(one, hu=one.hu + draw.normal(0, 12, one.hu.shape).astype(np.int16))
        for one in slices(count, side_px=512, spacing_mm=1.0)
    ]


def write_jobs(
    folder: Path, files: int, series: int, wanted: Callable[[str], bool] = lambda _: True
) -> Jobs:
    """Files of a CT slice and of a radiograph in every transfer syntax, and a series."""
    jobs: Jobs = {}
    film = get_testdata_file("RG1_UNCI.dcm", download=False)
    assert isinstance(film, str), "the bench needs pydicom-data: pip install 'osler[demo]'"
    real = read_image(film).values.astype(np.uint16)
    kinds: tuple[tuple[str, Stored, str], ...] = (
        ("ct", noisy_slices(1)[0].hu, "CT"),
        ("film", real, "CR"),
    )
    for kind, stored, modality in kinds:
        for coding, syntax in _SYNTAXES.items():
            if not wanted(f"{kind}-{coding}"):
                continue
            pixels, shown = stored, modality
            if coding == "jpeg-baseline":  # of eight bits, which are no Hounsfield units
                pixels, shown = ((stored >> 3) & 0xFF).astype(np.uint8), "CR"
            data = make_dicom(pixels, syntax=syntax, Modality=shown)
            place = folder / kind / coding
            place.mkdir(parents=True)
            paths = [place / f"{number}.dcm" for number in range(files)]
            for path in paths:
                path.write_bytes(data)
            jobs[f"{kind}-{coding}"] = {"files": list(map(str, paths)), "side": SIDE_PX}
    if not wanted("series"):
        return jobs
    place = folder / "series"
    place.mkdir()
    for number, data in enumerate(make_series(noisy_slices(series))):
        (place / f"{number:03}.dcm").write_bytes(data)
    jobs["series"] = {
        "files": sorted(map(str, place.iterdir())),
        "side": SIDE_PX,
        "most": min(SHOWN_SLICES, series),
    }
    return jobs


def _maker() -> PixelMaker:
    return PixelMaker(ImageSettings(side_px=SIDE_PX), "1.5")


def ours(job: dict[str, Any]) -> Pixels:
    """float32 (N, 3, S, S), the way that the product goes."""
    maker = _maker()
    if "most" not in job:
        images: Sequence[ImageSource] = job["files"]
    else:
        (study,) = scan(Path(job["files"][0]).parent).studies
        images = read_shown(shown_of(study.series[0], job["most"]))
    return maker.prepare(images, squaring="pad", pan_and_scan=False).pixels_N3SS


def measure_images(
    folder: Path,
    peers: Sequence[tuple[str, str]],
    *,
    files: int,
    series: int,
    runs: int,
    kinds: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Images a second of each job, ours and the peers'.

    Args:
        folder: for the files.
        peers: "pydicom" or "monai", each with the Python that has it.
        files: of each kind.
        series: slices of the series.
        runs: of which the best counts.
        kinds: names of jobs; all where there are none.
    """
    jobs = write_jobs(folder, files, series, lambda name: not kinds or name in kinds)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    theirs = {}
    decoding = [("decoding", python) for way, python in peers if way == "pydicom"]
    for way, python in [*peers, *decoding]:
        command = [python, str(_PEER), way, str(folder / "jobs.json"), f"--runs={runs}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        theirs[way] = json.loads(done.stdout.splitlines()[-1])
    return {name: _compared(folder, name, job, theirs, runs) for name, job in jobs.items()}


def _compared(
    folder: Path, name: str, job: dict[str, Any], theirs: dict[str, Any], runs: int
) -> dict[str, Any]:
    pixels = ours(job)  # the workers start, and import what is needed
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        ours(job)
        times.append(time.perf_counter() - start)
    count = len(pixels)
    found: dict[str, Any] = {"osler": round(count / min(times), 1)}
    for way, seconds in theirs.items():
        found[way] = round(count / seconds[name], 1)
        if way == "decoding":  # which is a part of the work: the most that a faster rest could give
            continue
        apart = np.abs(np.load(folder / f"{way}-{name}.npy") - pixels[-1])
        found[f"apart_{way}"] = round(float(apart.max()), 4)
        found[f"same_{way}"] = bool(apart.mean() < _TOLERANCE[way])
    peers = [found[way] for way in theirs if way != "decoding"]
    if peers:
        found["ratio"] = round(found["osler"] / max(peers), 2)
        wanted = AT_LEAST.get(name.partition("-")[2] or name)
        if wanted is not None:
            found["reached"] = found["ratio"] >= wanted
    return found
