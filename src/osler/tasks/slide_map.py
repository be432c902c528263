"""A whole slide as a small picture, with the patches that a model sees drawn on it."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

from osler.ingest.slide.patches import PatchRef
from osler.preprocess.slices import Shown

_LINE = (0, 110, 60)
_GROUND = (24, 24, 28)
_LEAST_SIDE_PX, _MOST_SIDE_PX = 512, 1536
_GAP_PX = 8
# Below this there is no room for a number in a square.
_NUMBERED_FROM_PX = 22


def draw_map(slides: Sequence[Shown]) -> NDArray[np.uint8]:
    """Draw slides one below the other, their patches numbered in the order in which they are seen.

    Args:
        slides: one or more, laid out, with the patches that are seen.

    Returns:
        uint8 RGB (H, W, 3).
    """
    pictures = [_drawn(shown) for shown in slides]
    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures) + _GAP_PX * (len(pictures) - 1)
    sheet = PIL.Image.new("RGB", (width, height), _GROUND)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + _GAP_PX
    return np.asarray(sheet)


def _drawn(shown: Shown) -> PIL.Image.Image:
    laid_out = shown.series.map
    assert laid_out is not None  # or it would have no patches
    picture = PIL.Image.fromarray(laid_out.picture)
    longest = max(picture.size)
    scale = min(max(longest, _LEAST_SIDE_PX), _MOST_SIDE_PX) / longest
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    side = laid_out.cell_px * scale
    draw = PIL.ImageDraw.Draw(picture)
    font = PIL.ImageFont.load_default(max(10, min(side / 3, 28)))
    patches = [frame for frame in shown.frames if isinstance(frame, PatchRef)]
    for number, patch in enumerate(patches, start=1):
        row, column = patch.cell
        left, top = column * side, row * side
        draw.rectangle((left, top, left + side - 1, top + side - 1), outline=_LINE, width=2)
        if side >= _NUMBERED_FROM_PX:
            draw.text((left + 5, top + 3), str(number), _LINE, font)
    return picture
