"""What a model sees of an image: the thing to look at first when an answer is odd."""

import os

import numpy as np
from numpy.typing import NDArray

from osler.preprocess.processor import Processor
from osler.preprocess.slices import MAX_SLICES
from osler.preprocess.sources import ImageSource
from osler.preprocess.squaring import Squaring
from osler.tasks.content import Progress, read_content
from osler.tasks.locate import PROCESSOR_FILES, locate


def seen_squares(
    image: ImageSource,
    name: str | os.PathLike[str] = "nano",
    *,
    version: str | None = None,
    squaring: Squaring = "pad",
    pan_and_scan: bool = False,
    max_slices: int = MAX_SLICES,
    progress: Progress | None = None,
) -> list[NDArray[np.uint8]]:
    """The squares that a MedGemma gets of an image.

    Args:
        image: a path, PIL image, array or `Image`, as `Assistant.ask` takes it.
        name: the model, as `osler.load` takes it; its weights are not read.
        version: as `osler.load` takes it.
        squaring: as `Assistant.ask` takes it.
        pan_and_scan: as `Assistant.ask` takes it.
        max_slices: as `Assistant.ask` takes it.
        progress: called while files are looked at and read.

    Returns:
        uint8 RGB (S, S, 3): of each image or slice the whole, then its crops.

    Raises:
        ModelNotFoundError: no model by that name.
        InputError: an image that cannot be read.
    """
    processor = Processor.from_folder(locate(name, "medgemma", PROCESSOR_FILES), version=version)
    content = read_content([image], max_slices=max_slices, progress=progress)
    return [
        square
        for item in content.items
        if item["type"] == "image"
        for square in processor.seen(item["image"], squaring=squaring, pan_and_scan=pan_and_scan)
    ]
