"""What a model sees of an image: the thing to look at first when an answer is odd."""

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from osler.preprocess.processor import Processor
from osler.preprocess.slices import MAX_SLICES
from osler.preprocess.slides import AT_10X, SlideView
from osler.preprocess.sources import ImageSource
from osler.preprocess.squaring import Squaring
from osler.tasks.content import Progress, read_content
from osler.tasks.locate import PROCESSOR_FILES, locate
from osler.tasks.slide_map import draw_map

Picture = NDArray[np.uint8]


class Seen(NamedTuple):
    """What a MedGemma gets, and where it is from.

    Attributes:
        squares: uint8 RGB (S, S, 3): of each image, slice or patch the whole, then its crops.
        map: of whole slides all of them with their patches drawn, (H, W, 3); else None.
    """

    squares: list[Picture]
    map: Picture | None


def seen(
    image: ImageSource,
    name: str | os.PathLike[str] = "nano",
    *,
    version: str | None = None,
    squaring: Squaring = "pad",
    pan_and_scan: bool = False,
    max_slices: int = MAX_SLICES,
    slides: SlideView = AT_10X,
    progress: Progress | None = None,
) -> Seen:
    """What a MedGemma gets of an image.

    Args:
        image: a path, PIL image, array or `Image`, as `Assistant.ask` takes it.
        name: the model, as `osler.load` takes it; its weights are not read.
        version: as `osler.load` takes it.
        squaring: as `Assistant.ask` takes it.
        pan_and_scan: as `Assistant.ask` takes it.
        max_slices: as `Assistant.ask` takes it.
        slides: as `Assistant.ask` takes it.
        progress: called while files are looked at and read.

    Raises:
        ModelNotFoundError: no model by that name.
        InputError: an image that cannot be read.
    """
    processor = Processor.from_folder(locate(name, "medgemma", PROCESSOR_FILES), version=version)
    content = read_content([image], max_slices=max_slices, slides=slides, progress=progress)
    squares = [
        square
        for item in content.items
        if item["type"] == "image"
        for square in processor.seen(item["image"], squaring=squaring, pan_and_scan=pan_and_scan)
    ]
    return Seen(squares, draw_map(content.slides) if content.slides else None)


def seen_squares(
    image: ImageSource, name: str | os.PathLike[str] = "nano", **options: Any
) -> list[Picture]:
    """The squares that a MedGemma gets of an image; everything is as in `seen`."""
    return seen(image, name, **options).squares
