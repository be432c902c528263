"""What a path holds, what is odd about it, and what asking about it would cost."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from osler.errors import InputError
from osler.ingest.scan import Scan, read_frames, scan
from osler.ingest.series import Series, Study
from osler.ingest.stack import Finding
from osler.preprocess.processor import Processor
from osler.preprocess.radiograph import looks_inverted
from osler.preprocess.render import render
from osler.preprocess.slices import MAX_SLICES, Shown, shown_of
from osler.preprocess.slides import AT_10X, SlideView, lay_out
from osler.preprocess.study_content import Exhibit, add_text, content_of, exhibits, moments_said
from osler.tasks.content import Progress, stage
from osler.tasks.locate import PROCESSOR_FILES, locate

# Why, says the error of whoever asks about it; a look goes on to the rest.
UNREADABLE = Finding("unreadable", "damaged, or of a coding that is not read")
_RADIOGRAPHS = ("CR", "DX", "RG", "MG", "IO", "PX")


@dataclass(frozen=True, kw_only=True)
class SeriesLook:
    """One series, in words and figures; no text of the patient's, no date.

    Attributes:
        study: which study it is of, from 1, oldest first.
        study_is: "Prior study", "Current study", or "" where that cannot be told.
        shown: the frames, evenly taken, that a question on this series alone shows the model.
        rows: height in pixels, of single images the largest.
        columns: width in pixels, likewise.
        sizes_differ: whether there are smaller images.
        view_position: of radiographs, as "AP" or "MLO".
        spacing_mm: between slices, None where there are none.
        pixel_spacing_mm: between rows and between columns.
        magnification: of a slide's patches.
        scanned_at: the magnification of all a slide's detail.
        tokens: of a prompt with this series alone.
    """

    study: int
    study_is: str
    kind: str
    modality: str | None
    body_part: str | None
    plane: str | None
    is_oblique: bool
    has_contrast: bool
    laterality: str | None
    frames: int
    shown: int
    rows: int
    columns: int
    sizes_differ: bool
    view_position: str | None
    pixel_spacing_mm: tuple[float, float] | None
    spacing_mm: float | None
    slice_thickness_mm: float | None
    magnification: float | None
    scanned_at: float | None
    tokens: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Look:
    """All that is under a path.

    Attributes:
        series: in the order of the studies' dates, then of their numbers.
        left_out: why files have no images, and how many for each reason.
        tokens: of a prompt with all that `osler ask` would show of the path.
        context_tokens: what the model takes at most.
        model: whose tokens they are.
        shown: each series with the frames that a model would see; not part of the record.
    """

    series: tuple[SeriesLook, ...]
    left_out: dict[str, int]
    tokens: int
    context_tokens: int
    model: str
    shown: tuple[Shown, ...]

    def record(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return {
            "series": [asdict(one) for one in self.series],
            "left_out": self.left_out,
            "tokens": self.tokens,
            "context_tokens": self.context_tokens,
            "model": self.model,
        }


def look(
    path: str | os.PathLike[str],
    name: str | os.PathLike[str] = "nano",
    *,
    max_slices: int = MAX_SLICES,
    slides: SlideView = AT_10X,
    progress: Progress | None = None,
) -> Look:
    """Say what is under a path.

    Args:
        path: as `scan` takes it.
        name: the model whose tokens are counted; its weights are not read.
        max_slices: as `ChatModel.ask` takes it.
        slides: as `ChatModel.ask` takes it.
        progress: called while files are looked at and read.

    Raises:
        ModelNotFoundError: no model by that name.
        InputError: a path that cannot be read, or without images.
    """
    folder = locate(name, "medgemma", PROCESSOR_FILES)
    processor = Processor.from_folder(folder)
    found = scan(path, progress=stage(progress, "looking"))
    studies, left_out = _laid_out(found, slides, progress)
    said = moments_said(studies)
    shown: list[Shown] = []
    rows: list[SeriesLook] = []
    for number, study in enumerate(studies, start=1):
        for series in study.series:
            one = shown_of(series, slides.max_patches if series.kind == "slide" else max_slices)
            tokens = _tokens(processor, [Exhibit("", one)])
            rows.append(_row(series, number, said.get(study.moment, ""), one, tokens))
            shown.append(one)
    return Look(
        series=tuple(rows),
        left_out=left_out,
        tokens=_tokens(processor, exhibits(studies, max_slices, max_patches=slides.max_patches)),
        context_tokens=processor.config.text_config.max_position_embeddings,
        model=os.fspath(name),
        shown=tuple(shown),
    )


def _laid_out(
    found: Scan, slides: SlideView, progress: Progress | None
) -> tuple[list[Study], dict[str, int]]:
    """All studies with the patches of their slides, and why some are left out.

    Raises:
        InputError: of the only study.
    """
    studies: list[Study] = []
    left_out = dict(found.left_out)
    for study in found.studies:
        try:
            studies += lay_out([study], slides, progress=stage(progress, "looking for tissue"))
        except InputError as error:
            if len(found.studies) == 1:
                raise
            left_out[str(error)] = 1
    return studies, left_out


def _row(series: Series, number: int, study_is: str, one: Shown, tokens: int) -> SeriesLook:
    file = series.file
    return SeriesLook(
        study=number,
        study_is=study_is,
        kind=series.kind,
        modality=series.modality,
        body_part=file.body_part,
        plane=series.plane,
        is_oblique=series.is_oblique,
        has_contrast=file.has_contrast,
        laterality=_common(frame.file.laterality for frame in series.frames),
        frames=len(series.frames),
        shown=len(one.frames),
        rows=max(frame.file.rows for frame in series.frames),
        columns=max(frame.file.columns for frame in series.frames),
        sizes_differ=len({(frame.file.rows, frame.file.columns) for frame in series.frames}) > 1,
        view_position=_common(frame.file.view_position for frame in series.frames),
        pixel_spacing_mm=file.pixel_spacing_mm,
        spacing_mm=series.spacing_mm or None,
        slice_thickness_mm=file.slice_thickness_mm,
        magnification=None if series.map is None else series.map.magnification,
        scanned_at=None if series.map is None else series.map.scanned_at,
        tokens=tokens,
        findings=(*series.findings, *_of_pixels(series)),
    )


def _common(values: Iterable[str | None]) -> str | None:
    """What all have, or several; None where none has any."""
    found = dict.fromkeys(value for value in values if value)
    return "/".join(found) or None


def _of_pixels(series: Series) -> list[Finding]:
    """What only the pixels tell, of radiographs."""
    if series.modality not in _RADIOGRAPHS or series.kind != "images":
        return []
    try:
        images = read_frames(series.frames)
    except InputError:
        return [UNREADABLE]
    doubtful = sum(looks_inverted(render(image, medgemma_version="1.5")) for image in images)
    if not doubtful:
        return []
    return [
        Finding(
            "photometric_doubtful",
            f"{doubtful} of {len(images)} bright around a dark middle: black and white are "
            "perhaps the wrong way round",
        )
    ]


def _tokens(processor: Processor, chosen: Sequence[Exhibit]) -> int:
    content = content_of(chosen, lambda shown: shown.frames)
    add_text(content, "?")  # the shortest question
    return processor.length([{"role": "user", "content": content}])


def size_of(row: SeriesLook) -> str:
    """Width and height in pixels, of the largest image."""
    return f"{'up to ' * row.sizes_differ}{row.columns} x {row.rows}"


def headline(row: SeriesLook) -> str:
    """One line that says what a series is, in codes and figures."""
    words = [row.modality or "image", row.body_part or ""]
    if row.plane is not None:
        words.append(f"{row.plane}{' oblique' * row.is_oblique}")
    if row.magnification is not None:
        words.append(f"at {row.magnification:g}x, scanned at {row.scanned_at:.3g}x")
    words += [row.view_position or "", "contrast" * row.has_contrast, row.laterality or ""]
    counted = {"volume": "slices", "clip": "frames", "slide": "patches", "images": "images"}[
        row.kind
    ]
    if row.frames == 1:
        counted = counted.removesuffix("es" if row.kind == "slide" else "s")
    joined = " on" if row.kind == "slide" else " of"
    size = [f"{row.frames} {counted}{joined} {size_of(row)}"]
    if row.pixel_spacing_mm is not None:
        size.append(f"{row.pixel_spacing_mm[0]:.3g} x {row.pixel_spacing_mm[1]:.3g} mm")
    if row.spacing_mm is not None:
        size.append(f"every {row.spacing_mm:.3g} mm")
    size.append(f"{row.tokens:,} tokens")
    return "  ".join([" ".join(filter(None, words)), ", ".join(size), row.study_is]).rstrip()
