"""Embedding in batches gives what embedding one by one gives."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from osler.inference.embed import embed_images, embed_texts
from osler.inference.torch_encoder import TorchEncoder
from osler.models.medsiglip import MedSiglip
from osler.preprocess.encoder_processor import EncoderProcessor
from osler.preprocess.sources import ImageSource
from osler.preprocess.squaring import Squaring
from osler.testing.models import randomise, tiny_medsiglip

IMAGES = [np.full((8, 8, 3), grey, np.uint8) for grey in range(7)]
TEXTS = ["a", "bc", "def", "ghij", "k"]


class CountingProcessor(EncoderProcessor):
    """Noise for images, letters for texts; counts what is in memory at once."""

    def __init__(self) -> None:
        self.images_at_once: list[int] = []

    def pixels(
        self, images: Iterable[ImageSource], *, squaring: Squaring = "pad"
    ) -> NDArray[np.float32]:
        seeds = [int(np.asarray(image)[0, 0, 0]) for image in images]
        self.images_at_once.append(len(seeds))
        squares = [np.random.default_rng(seed).uniform(-1, 1, (3, 56, 56)) for seed in seeds]
        return np.stack(squares).astype(np.float32)

    def ids(self, texts: Iterable[str]) -> NDArray[np.int64]:
        return np.array([[ord(letter) - 90 for letter in text.ljust(64, "z")] for text in texts])


@pytest.fixture(scope="module")
def model() -> TorchEncoder:
    model = MedSiglip(tiny_medsiglip())
    randomise(model)
    return TorchEncoder(model.eval())


def test_images_in_batches(model: TorchEncoder) -> None:
    processor, done = CountingProcessor(), list[int]()
    rows = embed_images(model, processor, IMAGES, batch_size=3, progress=done.append)
    assert done == [3, 6, 7]
    assert processor.images_at_once == [3, 3, 1]
    alone = [model.embed_images(processor.pixels([image]))[0] for image in IMAGES]
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, np.stack(alone), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_texts_in_batches(model: TorchEncoder) -> None:
    processor, done = CountingProcessor(), list[int]()
    rows = embed_texts(model, processor, TEXTS, batch_size=2, progress=done.append)
    assert done == [2, 4, 5]
    alone = [model.embed_texts(processor.ids([text]))[0] for text in TEXTS]
    np.testing.assert_allclose(rows, np.stack(alone), atol=1e-5)


def test_bfloat16_rows_are_of_length_one() -> None:
    model = MedSiglip(tiny_medsiglip())
    randomise(model)
    encoder = TorchEncoder(model.to(torch.bfloat16))
    rows = embed_images(encoder, CountingProcessor(), IMAGES)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_nothing_gives_no_rows(model: TorchEncoder) -> None:
    assert embed_images(model, CountingProcessor(), []).shape == (0, 32)
    assert embed_texts(model, CountingProcessor(), []).shape == (0, 32)
