"""Embeds images and texts with a MedSigLIP, a batch at a time.

Shapes: N images or texts, D embedding size.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from osler.models.config import MedSiglipConfig
from osler.preprocess.encoder_processor import EncoderProcessor
from osler.preprocess.sources import ImageSource

Item = TypeVar("Item")
Progress = Callable[[int], object]


class EmbeddingModel(Protocol):
    """A MedSigLIP, in torch or on the native engine."""

    @property
    def config(self) -> MedSiglipConfig:
        """Sizes of both towers."""

    @property
    def scale(self) -> float:
        """What cosines are multiplied by to be logits."""

    def embed_images(self, pixels_NCSS: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Unit vectors (N, D)."""

    def embed_texts(self, ids_ML: NDArray[np.int64], /) -> NDArray[np.float32]:
        """Unit vectors (M, D)."""


def embed_images(
    model: EmbeddingModel,
    processor: EncoderProcessor,
    images: Sequence[ImageSource],
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Embed images; each is read only when its batch comes.

    Args:
        model: the encoder.
        processor: the encoder's.
        images: what the processor takes.
        batch_size: images that go through the model together.
        progress: called after each batch with the number of images done so far.

    Returns:
        float32 (N, D), rows of length 1.

    Raises:
        InputError: an image that cannot be read.
    """

    def embed(batch: Sequence[ImageSource]) -> NDArray[np.float32]:
        return model.embed_images(processor.pixels(batch))

    return _in_batches(model, images, embed, batch_size, progress)


def embed_texts(
    model: EmbeddingModel,
    processor: EncoderProcessor,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Embed texts.

    Args:
        model: the encoder.
        processor: the encoder's.
        texts: of any length; what is beyond the encoder's positions is cut off.
        batch_size: texts that go through the model together.
        progress: called after each batch with the number of texts done so far.

    Returns:
        float32 (N, D), rows of length 1.
    """

    def embed(batch: Sequence[str]) -> NDArray[np.float32]:
        return model.embed_texts(processor.ids(batch))

    return _in_batches(model, texts, embed, batch_size, progress)


def _in_batches(
    model: EmbeddingModel,
    items: Sequence[Item],
    embed: Callable[[Sequence[Item]], NDArray[np.float32]],
    batch_size: int,
    progress: Progress | None,
) -> NDArray[np.float32]:
    rows = np.empty((len(items), model.config.text_config.projection_size), np.float32)
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        # Normalised again, because a row rounded to bfloat16 is no longer of length 1.
        rows_ND = embed(batch)
        length_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
        rows[start : start + len(batch)] = rows_ND / np.maximum(length_N1, 1e-12)
        if progress is not None:
            progress(start + len(batch))
    return rows
