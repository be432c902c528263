"""The data pack's images as an encoder sees them, set by set.

Shapes: N images, D embedding size.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from os import PathLike
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from osler.ingest.image import Image
from osler.ingest.image_pack import PackedImage, Split, read_image_pack
from osler.ingest.read import read_image_bytes

_CHUNK = 64


class ImageEmbedder(Protocol):
    """What makes unit vectors of images; `osler.load_encoder` gives one."""

    def embed_images(self, images: Sequence[Image], /) -> NDArray[np.float32]:
        """Unit vectors (N, D)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedImages:
    """Images with their embeddings.

    Attributes:
        items: their records.
        vectors_ND: unit vectors, in the same order.
    """

    items: list[PackedImage]
    vectors_ND: NDArray[np.float32]


def embed_pack(
    encoder: ImageEmbedder, folder: str | PathLike[str], split: Split, limit: int | None = None
) -> dict[str, EmbeddedImages]:
    """Embed the images of a split.

    Args:
        encoder: the model.
        folder: the data pack.
        split: "train" or "val".
        limit: at most so many images of each set, the first ones.

    Returns:
        By the names of the sets.

    Raises:
        InputError: the pack, or an image of it, cannot be read.
    """
    items = first_of_each_set(folder, split, limit)
    vectors_ND = embed_items(encoder, items, f"embedding {split}")
    sets: dict[str, EmbeddedImages] = {}
    for name, of_set in groupby(range(len(items)), key=lambda row: items[row].set_name):
        rows = list(of_set)
        sets[name] = EmbeddedImages(items=[items[row] for row in rows], vectors_ND=vectors_ND[rows])
    return sets


def first_of_each_set(
    folder: str | PathLike[str], split: Split, limit: int | None
) -> list[PackedImage]:
    """The records of a split, at most so many of each set."""
    by_set = groupby(read_image_pack(folder, split), key=lambda item: item.set_name)
    return [item for _, of_set in by_set for item in islice(of_set, limit)]


def embed_items(
    encoder: ImageEmbedder, items: Sequence[PackedImage], says: str
) -> NDArray[np.float32]:
    """Embed images, the next ones decoded while the model is busy; a progress bar says `says`."""
    parts = []
    with (
        ThreadPoolExecutor(1) as reader,
        tqdm(total=len(items), desc=says, unit="image") as bar,
    ):
        for images in _read_ahead(items, reader):
            parts.append(encoder.embed_images(images))
            bar.update(len(images))
    return np.concatenate(parts)


def decode(item: PackedImage) -> Image:
    """The image of a record."""
    return read_image_bytes(item.image_bytes, f"{item.key}.webp")


def _read_ahead(items: Sequence[PackedImage], reader: ThreadPoolExecutor) -> Iterator[list[Image]]:
    def read(start: int) -> list[Image]:
        return [decode(item) for item in items[start : start + _CHUNK]]

    coming = reader.submit(read, 0)
    for start in range(_CHUNK, len(items) + _CHUNK, _CHUNK):
        images = coming.result()
        coming = reader.submit(read, start)
        yield images
