"""Which patches of a whole slide a model sees.

A grid of squares of MedGemma's input size lies over the slide at one magnification; those with
tissue are patches, of which as many as there is room for are taken evenly over the tissue and kept
in their spatial order.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from osler.errors import PromptError, UnsupportedError
from osler.ingest.facts import Box, SlideFacts
from osler.ingest.image import Image
from osler.ingest.series import Series, SlideMap, Study
from osler.ingest.slide.patches import PatchRef, read_patches, survey
from osler.ingest.slide.tissue import tissue_fractions
from osler.ingest.stack import Finding, FrameRef

# What MedGemma 1.5 was given: squares of its input size, 32,256 image tokens of them at most.
PATCH_PX = 896
MAX_PATCHES = 126
MAGNIFICATIONS = (5, 10, 20)
_MASK_MAGNIFICATION = 5

# A lens of so many times and a camera give pixels of 10 micrometres over it, by convention.
_UM_AT_1X = 10.0
# More detail than was scanned cannot be shown; a little of it is how scanners' figures differ.
_MOST_ENLARGED = 1.5
_LEAST_TISSUE = 0.1
# A last row or column with less of the slide than this is left off.
_SLIVER = 0.02
_MAX_CELLS = 40_000
_MAP_PX = 1024
_LEAST_CELL_PX, _MOST_CELL_PX = 4, 224

Progress = Callable[[int, int], object]  # done, of how many


@dataclass(frozen=True, kw_only=True)
class SlideView:
    """How whole slides are looked at.

    Attributes:
        magnification: 5, 10 or 20; at 10 a pixel is one micrometre.
        mpp: micrometres per pixel of the slides, in place of what they say of themselves.
        max_patches: of all slides together.
    """

    magnification: int = 10
    mpp: float | None = None
    max_patches: int = MAX_PATCHES

    def __post_init__(self) -> None:
        if self.magnification not in MAGNIFICATIONS:
            raise PromptError(f"magnification is 5, 10 or 20, not {self.magnification}")
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise PromptError("mpp is a number of micrometres above 0")
        if self.max_patches < 1:
            raise PromptError("max_patches must be at least 1")


AT_10X = SlideView()


def lay_out(
    studies: Sequence[Study], view: SlideView = AT_10X, *, progress: Progress | None = None
) -> list[Study]:
    """Find the patches of all whole slides; everything else stays as it is.

    Args:
        studies: as they were found.
        view: how slides are looked at.
        progress: called while a slide is looked at.

    Returns:
        The same studies, whose slides have a `map`, and patches with tissue as `frames`.

    Raises:
        UnsupportedError: a slide whose magnification is not known or too low, or that is too large.
        InputError: a slide that is damaged.
    """
    return [
        replace(
            study,
            series=tuple(
                _laid_out(series, view, progress) if series.kind == "slide" else series
                for series in study.series
            ),
        )
        for study in studies
    ]


def _laid_out(series: Series, view: SlideView, progress: Progress | None) -> Series:
    (whole,) = series.frames
    slide, name = whole.file.slide, whole.part.name
    assert slide is not None  # or it would be another kind of series
    mpp, findings = _mpp(slide, view, name)
    scanned_at = _UM_AT_1X / math.sqrt(mpp[0] * mpp[1])
    if view.magnification > scanned_at * _MOST_ENLARGED:
        raise UnsupportedError(
            f"{name}: was scanned at {scanned_at:.2g} x, which has not the detail of "
            f"{view.magnification} x"
        )
    grid = _grid(slide, mpp, view.magnification, name)
    cell_px = _MAP_PX // max(len(grid), len(grid[0]))
    cell_px = min(max(cell_px, _LEAST_CELL_PX), _MOST_CELL_PX)
    counts_RC256, picture = survey(
        whole.part,
        slide,
        grid,
        side_px=PATCH_PX * _MASK_MAGNIFICATION // view.magnification,
        small_px=cell_px,
        progress=progress,
    )
    tissue = tissue_fractions(counts_RC256.reshape(-1, counts_RC256.shape[-1]))
    chosen = [cell for cell, fraction in enumerate(tissue) if fraction >= _LEAST_TISSUE]
    if not chosen:
        findings.append(Finding("no_tissue", "no tissue found; patches are of all of the slide"))
        chosen = list(range(tissue.size))
    file = replace(whole.file, pixel_spacing_mm=(mpp[1] / 1000, mpp[0] / 1000))
    patches = [
        PatchRef(whole.part, cell, file, grid[row][column], (row, column))
        for cell in chosen
        for row, column in [divmod(cell, len(grid[0]))]
    ]
    return replace(
        series,
        frames=tuple(patches),
        findings=(*series.findings, *findings),
        map=SlideMap(
            picture=picture,
            cell_px=cell_px,
            magnification=view.magnification,
            scanned_at=scanned_at,
        ),
    )


def _mpp(
    slide: SlideFacts, view: SlideView, name: str
) -> tuple[tuple[float, float], list[Finding]]:
    """Micrometres per pixel along a row and down a column, and what is odd about them."""
    if view.mpp is not None:
        return (view.mpp, view.mpp), []
    if slide.mpp is not None:
        return slide.mpp, []
    if slide.objective_power is None or slide.objective_power <= 0:
        raise UnsupportedError(
            f"{name}: a slide that does not say how large its pixels are; say it with "
            "--mpp MICROMETRES"
        )
    mpp = _UM_AT_1X / slide.objective_power
    text = f"no pixel spacing; magnification by its objective, {slide.objective_power:g} x"
    return (mpp, mpp), [Finding("objective_only", text)]


def _grid(
    slide: SlideFacts, mpp: tuple[float, float], magnification: int, name: str
) -> list[list[Box]]:
    left, top, width, height = slide.bounds_px
    side_um = PATCH_PX * _UM_AT_1X / magnification
    across, down = side_um / mpp[0], side_um / mpp[1]
    columns = max(1, math.ceil(width / across - _SLIVER))
    rows = max(1, math.ceil(height / down - _SLIVER))
    if rows * columns > _MAX_CELLS:
        raise UnsupportedError(
            f"{name}: a grid of {rows * columns:,} squares is more than the {_MAX_CELLS:,} "
            "that are looked at"
        )
    return [
        [(left + column * across, top + row * down, across, down) for column in range(columns)]
        for row in range(rows)
    ]


def patches_of(series: Series, most: int) -> tuple[PatchRef, ...]:
    """As many of a slide's patches as there may be, in the order of reading.

    Raises:
        ValueError: a slide that has not been laid out.
    """
    patches = _patches(series.frames)
    return tuple(patches[place] for place in evenly_over([one.cell for one in patches], most))


def read_slide(frames: Sequence[FrameRef], *, progress: Progress | None = None) -> list[Image]:
    """Patches at MedGemma's input size.

    Raises:
        InputError: a slide that is damaged.
    """
    return read_patches(_patches(frames), PATCH_PX, progress=progress)


def _patches(frames: Sequence[FrameRef]) -> list[PatchRef]:
    patches = [frame for frame in frames if isinstance(frame, PatchRef)]
    if len(patches) < len(frames):
        raise ValueError("a slide has to be laid out before it is shown")
    return patches


def evenly_over(cells: Sequence[tuple[int, int]], most: int) -> list[int]:
    """Which cells of a grid to take where at most so many may be, evenly in both directions.

    Every so manyth cell on a curve that fills the plane: every so manyth of the rows one after
    another would stand in columns where the step is a multiple of their length.

    Args:
        cells: (row, column) of each.
        most: at least 1.

    Returns:
        Their numbers, in the order in which they were given.

    >>> evenly_over([(0, 0), (0, 1), (0, 2), (0, 3)], 2)
    [1, 3]

    Source: Morton 1966, the Z-order curve.
    """
    if len(cells) <= most:
        return list(range(len(cells)))
    along = sorted(range(len(cells)), key=lambda number: _z_order(*cells[number]))
    step = len(cells) / most
    return sorted(along[int((place + 0.5) * step)] for place in range(most))


def _z_order(row: int, column: int) -> int:
    """The bits of both, one from each in turn."""
    bits = max(row, column).bit_length()
    return sum(
        (row >> bit & 1) << 2 * bit + 1 | (column >> bit & 1) << 2 * bit for bit in range(bits)
    )
