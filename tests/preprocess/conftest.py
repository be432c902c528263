"""Folders with tiny tokenizers, and the reference processors on the same files."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from transformers import AutoProcessor

from osler.preprocess.encoder_processor import EncoderProcessor
from osler.preprocess.processor import Processor
from osler.tasks.locate import shipped_weights
from osler.testing.tokenizers import tiny_medgemma_folder, tiny_medsiglip_folder


@pytest.fixture(scope="session")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma")
    tiny_medgemma_folder(folder)
    return folder


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip")
    tiny_medsiglip_folder(folder)
    return folder


@pytest.fixture(scope="session")
def processor(gemma_folder: Path) -> Processor:
    return Processor.from_folder(gemma_folder)


@pytest.fixture(scope="session")
def encoder_processor(siglip_folder: Path) -> EncoderProcessor:
    return EncoderProcessor.from_folder(siglip_folder)


@pytest.fixture(scope="session")
def their_processor(gemma_folder: Path) -> Any:
    return AutoProcessor.from_pretrained(gemma_folder)


@pytest.fixture(scope="session")
def their_encoder_processor(siglip_folder: Path) -> Any:
    return AutoProcessor.from_pretrained(siglip_folder)


@pytest.fixture(scope="session")
def nano_folder() -> Path:
    """The shipped MedGemma's tokenizer, with or without weights beside it."""
    return shipped_weights() / "medgemma-nano"


def noise(height: int, width: int, seed: int = 0) -> PIL.Image.Image:
    """An RGB picture of random values."""
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(rgb)
