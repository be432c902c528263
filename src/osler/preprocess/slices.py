"""Which frames of a series a model sees, what they are called, and how bright they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from osler.ingest.image import Image
from osler.ingest.scan import Progress, read_frames, value_range
from osler.ingest.series import Series
from osler.ingest.stack import FrameRef
from osler.preprocess.slides import patches_of, read_slide

# What MedGemma 1.5 was given at most: 21,760 image tokens.
MAX_SLICES = 85
# Above this, uptake is as black as it gets; brain, heart and bladder are, most lesions are not.
_SUV_MAX = 10.0

_LABELS = {"volume": "SLICE", "clip": "FRAME"}


@dataclass(frozen=True)
class Shown:
    """The frames of a series that a model sees.

    Attributes:
        series: all of it.
        frames: those that are seen, in order.
    """

    series: Series
    frames: tuple[FrameRef, ...]

    @property
    def labels(self) -> list[str]:
        """What stands after each image; empty texts for single images."""
        word = _LABELS.get(self.series.kind)
        return [f"{word} {number}" if word else "" for number in range(1, len(self.frames) + 1)]


def evenly(count: int, most: int) -> list[int]:
    """Which of `count` slices to take where at most so many may be.

    >>> evenly(3, 85)
    [0, 1, 2]
    >>> evenly(100, 4)
    [25, 50, 74, 99]

    Source: google-health/medgemma, notebooks/high_dimensional_ct_hugging_face.ipynb.
    """
    if count <= most:
        return list(range(count))
    return [round(place / most * (count - 1)) for place in range(1, most + 1)]


def shown_of(series: Series, most: int = MAX_SLICES) -> Shown:
    """Choose frames of a series, or patches of a slide, evenly where it has more than `most`."""
    if series.kind == "images":
        return Shown(series, series.frames)
    if series.kind == "slide":
        return Shown(series, patches_of(series, most))
    chosen = evenly(len(series.frames), most)
    return Shown(series, tuple(series.frames[place] for place in chosen))


def read_shown(shown: Shown, *, progress: Progress | None = None) -> list[Image]:
    """Decode the frames, with one range of brightness for all slices of a volume.

    CT needs none: its windows are fixed. PET is shown up to an uptake of 10, or up to the largest
    value of the volume, and NM so always; MR and what is not known from the smallest value of the
    volume to the largest, those of the slices that are not seen included.

    Raises:
        InputError: a file that is damaged, or of a kind that is not read.

    Source: MedGemma 1.5 technical report (arXiv 2604.05081) for MR.
    """
    if shown.series.kind == "slide":
        return read_slide(shown.frames, progress=progress)
    is_ranged = shown.series.kind == "volume" and shown.series.modality != "CT"
    suv = shown.series.file.suv_per_unit
    others: list[FrameRef] = []
    if is_ranged and suv is None:
        seen = set(shown.frames)
        others = [frame for frame in shown.series.frames if frame not in seen]
    total = len(shown.frames) + len(others)
    images = read_frames(shown.frames, progress=_part_of(progress, 0, total))
    if not is_ranged or any(image.space == "display" for image in images):
        return images
    if suv is not None:
        return _with_range(images, (0.0, _SUV_MAX / suv))
    low = min(float(image.values.min()) for image in images)
    high = max(float(image.values.max()) for image in images)
    if others:
        rest = value_range(others, progress=_part_of(progress, len(images), total))
        low, high = min(low, rest[0]), max(high, rest[1])
    return _with_range(images, (0.0 if shown.series.modality in ("PT", "NM") else low, high))


def _with_range(images: Sequence[Image], shown_range: tuple[float, float]) -> list[Image]:
    return [replace(image, shown_range=shown_range) for image in images]


def _part_of(
    progress: Progress | None, before: int, total: int
) -> Callable[[int, int], object] | None:
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
