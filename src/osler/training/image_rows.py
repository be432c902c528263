"""Rows with an image: what is in it, what is said of it, what is asked about it.

A row is a sample of a tar or folder (`a.png` beside `a.txt` or `a.json`), or has the image among
its fields, as Parquet files have. Rows of the data pack bear labels, from which captions and
questions are made; of any other row the caption is its text.
"""

import random
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from osler.errors import UnreadableFileError
from osler.ingest.image_pack import PackedImage
from osler.training import phrases
from osler.training.captions import class_key, contrastive_caption, instruction_pairs
from osler.training.images import Variation, augment, square, to_model_range, variation
from osler.training.streams.shards import Row

_IMAGE = ("webp", "png", "jpg", "jpeg", "image")
_CAPTION = ("caption", "text", "txt", "report")


def has_image(row: Row) -> bool:
    """Whether there is an image in it."""
    return any(name in row.fields for name in _IMAGE)


def image_square(row: Row, side_px: int) -> Tensor:
    """The image, zero-padded to a square and resized: uint8 (3, side_px, side_px).

    Raises:
        UnreadableFileError: there is none, or it cannot be decoded.
    """
    try:
        return torch.from_numpy(np.array(square(_image_bytes(row), side_px)))
    except (OSError, PIL.Image.DecompressionBombError) as error:
        raise UnreadableFileError(f"{row.where}: the image cannot be decoded") from error


def pixels(
    square_3SS: Tensor, set_name: str, rng: random.Random | None, side_px: int | None = None
) -> Tensor:
    """A square as a model sees it, float32 -1 to 1.

    Where there is a generator, it is varied, and may be made smaller (`augment`).
    """
    if rng is None:
        return to_model_range(square_3SS)
    return augment(square_3SS[None], drawn_variation(set_name, rng), side_px)[0]


def drawn_variation(set_name: str, rng: random.Random) -> Variation:
    """How one image of a set is varied."""
    return variation([set_name], torch.Generator().manual_seed(rng.getrandbits(63)))


def packed(row: Row) -> PackedImage | None:
    """The row as a record of the data pack, where it is one."""
    fields = row.fields.get("json", {})
    if not {"set", "modality", "body_part"} <= fields.keys():
        return None
    return PackedImage(
        set_name=fields["set"],
        key=row.where,
        group=fields.get("group", ""),
        modality=fields["modality"],
        body_part=fields["body_part"],
        labels=fields.get("labels", {}),
        text=fields.get("text"),
        meta=fields.get("meta", {}),
        image_bytes=b"",
    )


def caption(row: Row, rng: random.Random) -> tuple[str, str, str]:
    """A caption, the key of what it tells, and the key of what the image is.

    The caption is true of every image whose key begins with the caption's.

    Raises:
        UnreadableFileError: the row has no text.
    """
    if (item := packed(row)) is not None:
        text, told = contrastive_caption(item, rng)
        return text, told, class_key(item)
    text = _own_text(row)
    # The same words are the same caption; a "/" would make it a part of another.
    key = text.lower().replace("/", " ")
    return text, key, key


def turn(row: Row, rng: random.Random) -> tuple[str, str]:
    """A question about the image with its answer.

    Raises:
        UnreadableFileError: the row has no text.
    """
    if (item := packed(row)) is not None:
        return instruction(item, rng)
    told = Row(where=row.where, fields={**row.fields, **row.fields.get("json", {})})
    if "question" in told.fields:
        return told.text("question"), told.text("answer")
    return rng.choice(phrases.DESCRIBE).format(noun="image"), _own_text(row)


def description(row: Row, rng: random.Random) -> tuple[str, str]:
    """A question for a description, with the answer.

    Raises:
        UnreadableFileError: the row has no text.
    """
    if (item := packed(row)) is not None:
        return instruction_pairs(item, rng)[0]
    return turn(row, rng)


def instruction(item: PackedImage, rng: random.Random) -> tuple[str, str]:
    """One question about an image of the pack: the answer to a second could be read off the first.

    What is found is harder than what is shown; questions about it come last in the list, and are
    asked more often.
    """
    described, *others = instruction_pairs(item, rng)
    return rng.choice([described] * 3 + others + others[-3:] * 3)


def _own_text(row: Row) -> str:
    fields = {**row.fields.get("json", {}), **row.fields}
    return Row(where=row.where, fields=fields).text(*_CAPTION)


def _image_bytes(row: Row) -> bytes:
    found: Any = next((row.fields[name] for name in _IMAGE if name in row.fields), None)
    if isinstance(found, dict):  # as the Hugging Face datasets library stores images
        found = found.get("bytes")
    if not isinstance(found, bytes):
        raise UnreadableFileError(f"{row.where}: no image")
    return found
