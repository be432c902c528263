"""Results into files, to be looked at, and sent with `osler push`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite

from osler.archive.results.capture import captures
from osler.archive.results.document import pdf_report
from osler.archive.results.draft import read_draft
from osler.archive.results.report import text_report
from osler.archive.results.source import sources_of
from osler.errors import UnsupportedError
from osler.ingest.read import read_image


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was written.

    Attributes:
        study_uid: the study that all of it belongs to.
        files: the report, its PDF, then a file for each picture.
    """

    study_uid: str
    files: tuple[Path, ...]


def write_results(
    answer: Path, sources: Iterable[Path], folder: Path, *, seen: Sequence[Path] = ()
) -> Results:
    """Write an answer as DICOM: a text report, a PDF, and what the model saw.

    Args:
        answer: what `osler ask --json` has printed.
        sources: the DICOM files that it was asked about, or folders of them.
        folder: where to; made where it is not there.
        seen: pictures of what the model saw, as `osler show` writes them.

    Raises:
        InputError: an answer, source or picture that is none, or that do not go together.
    """
    draft = read_draft(answer)
    found = sources_of(draft, sources)
    squares = [_square(path) for path in seen]
    made = {
        "report.dcm": text_report(draft, found),
        "report-pdf.dcm": pdf_report(draft, found),
        **{
            f"seen-{number}.dcm": ds
            for number, ds in enumerate(captures(draft, found, squares), start=1)
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, ds in made.items():
        _write(folder / name, ds)
    study_uid = str(found.current.StudyInstanceUID)
    return Results(study_uid=study_uid, files=tuple(folder / name for name in made))


def _square(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = read_image(path)
    if image.space == "modality":
        raise UnsupportedError(f"{path}: not a picture of what the model saw")
    return image.values.astype(np.uint8, copy=False)


def _write(path: Path, ds: Dataset) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        dcmwrite(part, ds, enforce_file_format=True)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
