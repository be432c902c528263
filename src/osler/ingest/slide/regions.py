"""Rectangles of a slide, brought to a size; runs in the decoding worker."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image as PilImage
from PIL.Image import Resampling

from osler.ingest.color_profile import as_srgb
from osler.ingest.facts import Box
from osler.ingest.image import Image
from osler.ingest.slide.opened import OpenedSlide
from osler.ingest.slide.tissue import saturations

# At most so many pixels of a side are read at once: 16 megapixels, whatever the region is.
_BLOCK_PX = 4096
# A level that is coarser than is wanted by no more than this serves.
_COARSER = 1.01
_WHITE = (255, 255, 255)


def patches(slide: OpenedSlide, boxes: Sequence[Box], side_px: int, source: str) -> Iterator[Image]:
    """Squares of a slide as images in sRGB.

    Args:
        slide: an open one.
        boxes: where they lie, in pixels of the largest level; what lies outside is white.
        side_px: what each becomes.
        source: the slide's name, for the record.

    Raises:
        UnreadableFileError: damaged.
    """
    for box in boxes:
        values = np.asarray(as_srgb(region(slide, box, side_px), slide.profile))
        yield Image(
            values=values,
            space="display",
            modality="SM",
            source=source,
            sha256=hashlib.sha256(values.tobytes()).hexdigest(),
            decoder=slide.decoder,
        )


def surveys(
    slide: OpenedSlide, boxes: Sequence[Box], side_px: int, small_px: int
) -> Iterator[tuple[bytes, bytes]]:
    """How much colour there is in each square, and a small picture of it.

    Args:
        slide: an open one.
        boxes: where they lie.
        side_px: the size in which they are measured.
        small_px: side of the small pictures.

    Yields:
        The counts of `tissue.saturations` as int32 (256,), and uint8 RGB (small, small, 3).

    Raises:
        UnreadableFileError: damaged.
    """
    for box in boxes:
        square = region(slide, box, side_px)
        small = as_srgb(square.resize((small_px, small_px), Resampling.BOX), slide.profile)
        yield saturations(square).tobytes(), small.tobytes()


def region(slide: OpenedSlide, box: Box, side_px: int) -> PilImage.Image:
    """A rectangle of a slide as a square of the slide's own colours.

    It is read from the smallest level that has its detail, in blocks, so that memory does not
    grow with it.
    """
    level = _level_for(slide, box[2] / side_px)
    across, down = (
        own / base for own, base in zip(slide.sizes[level], slide.sizes[0], strict=True)
    )
    left, top, width, height = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    blocks = math.ceil(max(width, height) / _BLOCK_PX)
    cuts = [round(side_px * cut / blocks) for cut in range(blocks + 1)]
    square = PilImage.new("RGB", (side_px, side_px), _WHITE)
    for upper, lower in pairwise(cuts):
        for near, far in pairwise(cuts):
            block = (
                left + width * near / side_px,
                top + height * upper / side_px,
                left + width * far / side_px,
                top + height * lower / side_px,
            )
            size = far - near, lower - upper
            square.paste(_block(slide, level, block, size), (near, upper))
    return square


def _level_for(slide: OpenedSlide, ratio: float) -> int:
    """The smallest level with at least the detail of one pixel for `ratio` of the largest's."""
    width = slide.sizes[0][0]
    fine = [n for n, size in enumerate(slide.sizes) if width / size[0] <= ratio * _COARSER]
    return fine[-1] if fine else 0


def _block(
    slide: OpenedSlide,
    level: int,
    edges: tuple[float, float, float, float],
    size: tuple[int, int],
) -> PilImage.Image:
    """What lies between edges, given as left, top, right, bottom in pixels of a level."""
    left, top = math.floor(edges[0]), math.floor(edges[1])
    right, bottom = math.ceil(edges[2]), math.ceil(edges[3])
    width, height = slide.sizes[level]
    near, far = (max(left, 0), max(top, 0)), (min(right, width), min(bottom, height))
    if near == (left, top) and far == (right, bottom):
        whole = slide.read(level, left, top, right - left, bottom - top)
    else:
        whole = PilImage.new("RGB", (right - left, bottom - top), _WHITE)
        if near[0] < far[0] and near[1] < far[1]:
            read = slide.read(level, *near, far[0] - near[0], far[1] - near[1])
            whole.paste(read, (near[0] - left, near[1] - top))
    own = (edges[0] - left, edges[1] - top, edges[2] - left, edges[3] - top)
    is_smaller = own[2] - own[0] >= size[0]
    resample = Resampling.HAMMING if is_smaller else Resampling.BICUBIC
    # By whole pixels first, where much is to go, which takes a third of the time.
    return whole.resize(size, resample, box=own, reducing_gap=2.0)
