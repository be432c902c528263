from pathlib import Path

import pytest

from osler.errors import CheckpointError, ModelNotFoundError
from osler.models.checkpoint import load_medgemma, load_medsiglip
from osler.models.config import FULL, SLIDING, medgemma_4b
from osler.models.pages import PAGE_TOKENS, page_numbers
from osler.tasks.info import cache_numbers, model_info


def test_sizes_of_the_released_4b() -> None:
    info = model_info("medgemma_4b")
    assert sum(info.parameters.values()) == 4_300_079_472  # google/medgemma-4b-it's index file
    assert (info.image_size_px, info.tokens_per_image, info.context_tokens) == (896, 256, 131_072)
    assert info.weights_bytes["bfloat16"] == 2 * 4_300_079_472
    assert info.weights_bytes["float32"] == 4 * 4_300_079_472


def test_text_only_has_no_images() -> None:
    info = model_info("medgemma_27b_text")
    assert info.image_size_px is None
    assert info.tokens_per_image is None
    assert set(info.parameters) == {"language_model"}


def test_an_encoder_has_no_cache() -> None:
    info = model_info("medsiglip_448")
    assert info.family == "medsiglip"
    assert info.version is None
    assert info.cache_bytes == {}
    assert info.parameters["logit_scale"] == 1


def test_a_folder_is_described_without_its_weights(tmp_path: Path, medgemma_folder: Path) -> None:
    (tmp_path / "config.json").write_bytes((medgemma_folder / "config.json").read_bytes())
    loaded = load_medgemma(medgemma_folder)
    parameters = model_info(str(tmp_path)).parameters
    assert sum(parameters.values()) == sum(p.numel() for p in loaded.parameters())


def test_the_family_comes_from_the_folder(medsiglip_folder: Path) -> None:
    info = model_info(str(medsiglip_folder))
    loaded = load_medsiglip(medsiglip_folder)
    assert info.family == "medsiglip"
    assert sum(info.parameters.values()) == sum(p.numel() for p in loaded.parameters())


def test_cache_numbers_are_those_of_full_pages() -> None:
    """At lengths that fill pages, and a window that does, the engine's pages hold no more."""
    text = medgemma_4b().text_config
    pages = 8192 // PAGE_TOKENS, text.sliding_window // PAGE_TOKENS
    held = pages[0] * page_numbers(text, FULL) + pages[1] * page_numbers(text, SLIDING)
    assert cache_numbers(text, 8192) == held


def test_local_layers_stop_growing_at_the_window() -> None:
    text = medgemma_4b().text_config
    # 5 of 34 layers are global; 2 x 4 heads x 256 numbers a position and layer.
    assert cache_numbers(text, 8192) - cache_numbers(text, 4096) == 5 * 4096 * 2048


def test_contexts_stop_at_the_models_own(medgemma_folder: Path) -> None:
    assert list(model_info(str(medgemma_folder)).cache_bytes["float32"]) == [2048, 8192]


def test_an_unknown_name_lists_the_configurations() -> None:
    with pytest.raises(ModelNotFoundError, match="medgemma_4b, medgemma_27b"):
        model_info("medgemma_5b")


def test_a_folder_of_another_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="llama"):
        model_info(str(tmp_path))
