"""Checkpoint folders for tests: tiny tokenizers, all that a processor reads, and no weights."""

import json
from dataclasses import replace
from pathlib import Path

from osler.models.config import MedGemmaConfig, MedSiglipConfig
from osler.models.hf_config import CONFIG_FILE, medgemma_json, medsiglip_json
from osler.testing.models import tiny_medgemma, tiny_medsiglip
from osler.training.tokenizers import train_gemma_tokenizer, train_siglip_tokenizer

TEXT = (
    "The heart is normal in size. The lungs are clear. There is no pleural effusion.",
    "A chest X-ray with pneumonia in the left lower lobe; 12.5 cm, seen on 3/4/2020.",
    "Grüße, café, naïve, 37 °C, µg/ml, (A) or (B)? Yes: 5 > 4!\n\n- one\n- two\n",
    "user model system Describe this image. What is the modality of this image?",
)


def tiny_medgemma_folder(folder: Path, *, vocab_size: int = 480) -> MedGemmaConfig:
    """Write a tiny MedGemma without weights; its images are 56 px and 4 tokens.

    Returns:
        What its `config.json` says.
    """
    tiny = tiny_medgemma()
    assert tiny.vision_config is not None
    train_gemma_tokenizer(
        TEXT,
        folder,
        vocab_size,
        side_px=tiny.vision_config.image_size,
        image_tokens=tiny.mm_tokens_per_image,
    )
    config = replace(
        tiny,
        text_config=replace(tiny.text_config, vocab_size=vocab_size),
        boi_token_id=vocab_size - 3,
        eoi_token_id=vocab_size - 2,
        image_token_id=vocab_size - 1,
    )
    values = medgemma_json(config, "float32")[CONFIG_FILE]
    (folder / CONFIG_FILE).write_text(json.dumps(values), encoding="utf-8")
    return config


def tiny_medsiglip_folder(folder: Path, *, vocab_size: int = 64) -> MedSiglipConfig:
    """Write a tiny MedSigLIP without weights; its images are 56 px.

    Returns:
        What its `config.json` says.
    """
    tiny = tiny_medsiglip()
    train_siglip_tokenizer(TEXT, folder, vocab_size, side_px=tiny.vision_config.image_size)
    config = replace(tiny, text_config=replace(tiny.text_config, vocab_size=vocab_size))
    values = medsiglip_json(config, "float32")[CONFIG_FILE]
    (folder / CONFIG_FILE).write_text(json.dumps(values), encoding="utf-8")
    return config
