"""Text in pictures, found by RapidOCR, whose networks come with its package."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from osler.errors import UnsupportedError

if TYPE_CHECKING:
    from rapidocr import RapidOCR

# What a technician puts into the beam, and what a viewer draws: it says how to read the picture.
_HARMLESS = frozenset(
    """
    L R LEFT RIGHT RT LT AP PA LAT LATERAL OBL SUPINE PRONE ERECT UPRIGHT SITTING PORTABLE MOBILE
    LL RL CC MLO LCC RCC LMLO RMLO CM MM KG H F A P S I
""".split()
)
_SURE = 0.8  # from here on a harmless word is taken for what it was read as
_LEAST_SCORE = 0.3
_FEWEST_LETTERS = 2
# One letter of so much of the picture's height is a trunk with two lungs, read as an 8.
_BODY = 1 / 3
# Large pictures are read in squares: shrunk as a whole, their small letters would be lost.
_TILE_PX, _OVERLAP_PX = 1024, 192
_TALLEST_WITHOUT_TILES = 1280


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, its ends not in it."""

    top: int
    left: int
    bottom: int
    right: int


def check_reader() -> None:
    """See that text can be looked for at all.

    Raises:
        UnsupportedError: the libraries are not installed.
    """
    if not all(map(find_spec, ("onnxruntime", "rapidocr"))):
        raise UnsupportedError(
            "text in pixels is found with RapidOCR, which is not installed: pip install "
            "'osler[ocr]'; or leave the pixels as they are with --keep-pixels"
        )


def find_text(picture_HW: NDArray[np.uint8]) -> list[Box]:
    """Where there is text that may say who somebody is.

    Args:
        picture_HW: grey levels, uint8 `(H, W)`.

    Returns:
        A box around each line of text, with a margin.
    """
    height, width = picture_HW.shape
    boxes = []
    for top, left in _tiles(height, width):
        tile = picture_HW[top : top + _TILE_PX, left : left + _TILE_PX]
        if max(height, width) <= _TALLEST_WITHOUT_TILES:
            tile = picture_HW
        for box in _lines_of(tile):
            moved = Box(box.top + top, box.left + left, box.bottom + top, box.right + left)
            boxes.append(_with_margin(moved, height, width))
    return boxes


def _tiles(height: int, width: int) -> Iterator[tuple[int, int]]:
    if max(height, width) <= _TALLEST_WITHOUT_TILES:
        yield 0, 0
        return
    for top in _starts(height):
        for left in _starts(width):
            yield top, left


def _starts(length: int) -> list[int]:
    if length <= _TILE_PX:
        return [0]
    step = _TILE_PX - _OVERLAP_PX
    return [*range(0, length - _TILE_PX, step), length - _TILE_PX]


def _lines_of(tile_HW: NDArray[np.uint8]) -> Iterator[Box]:
    if tile_HW.min() == tile_HW.max():
        return
    found: Any = _reader()(np.repeat(tile_HW[..., None], 3, axis=-1))
    if found.boxes is None:
        return
    for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
        left, top = np.floor(corners.min(axis=0)).astype(int)
        right, bottom = np.ceil(corners.max(axis=0)).astype(int)
        box = Box(int(top), int(left), int(bottom), int(right))
        # Where it finds no line, RapidOCR reads the picture as one.
        is_all = box.bottom - box.top >= tile_HW.shape[0] - 1 and not box.left
        is_body = len(_letters(text)) == 1 and box.bottom - box.top > _BODY * tile_HW.shape[0]
        if is_body or (is_all and score < _SURE) or _is_harmless(text, float(score)):
            continue
        yield box


def _is_harmless(text: str, score: float) -> bool:
    """Whether it is a sign that stays, or bones and noise read as a letter."""
    letters = _letters(text)
    if score < _SURE:
        return len(letters) < _FEWEST_LETTERS
    return not letters or letters in _HARMLESS


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).upper()


def _with_margin(box: Box, height: int, width: int) -> Box:
    margin = 2 + (box.bottom - box.top) // 4
    return Box(
        max(0, box.top - margin),
        max(0, box.left - margin),
        min(height, box.bottom + margin),
        min(width, box.right + margin),
    )


@cache
def _reader() -> "RapidOCR":
    from rapidocr import RapidOCR

    threads = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}  # files are read side by side
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,  # nobody burns text in upside down
            "Global.text_score": _LEAST_SCORE,
            **{f"EngineConfig.onnxruntime.{name}": count for name, count in threads.items()},
        }
    )
