"""The named configurations at full size, on the meta device: no memory, every shape."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from osler.models.config import (
    MedGemmaConfig,
    medgemma_4b,
    medgemma_27b,
    medgemma_27b_text,
    medsiglip_448,
)
from osler.models.hf_config import CONFIG_FILE, medgemma_json, medsiglip_json
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip

Shapes = dict[str, tuple[int, ...]]


def shapes(model: Any) -> Shapes:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Parameters of transformers' models from the released sizes, counted once.
@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (medgemma_4b(), 4_300_079_472),
        (medgemma_27b(), 27_432_406_640),
        (medgemma_27b_text(), 27_009_346_304),
    ],
    ids=["4b", "27b", "27b text"],
)
def test_medgemma_keys_shapes_and_count(config: MedGemmaConfig, parameters: int) -> None:
    content = medgemma_json(config, "bfloat16")[CONFIG_FILE]
    with torch.device("meta"):
        ours = MedGemma(config)
        if config.vision_config is None:
            theirs = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**content))
            outer, inner = "model.", "language_model."
        else:
            theirs = transformers.Gemma3ForConditionalGeneration(
                transformers.Gemma3Config(**content)
            )
            outer, inner = "model.", ""
    assert shapes(ours) == {
        inner + name.removeprefix(outer): shape for name, shape in shapes(theirs).items()
    }
    assert count(ours) == count(theirs) == parameters


def test_medsiglip_keys_shapes_and_count() -> None:
    content = medsiglip_json(medsiglip_448(), "float32")[CONFIG_FILE]
    with torch.device("meta"):
        ours = MedSiglip(medsiglip_448())
        theirs = transformers.SiglipModel(transformers.SiglipConfig(**content))
    assert shapes(ours) == {
        name.replace("vision_model.head.", "vision_head."): shape
        for name, shape in shapes(theirs).items()
    }
    assert count(ours) == count(theirs) == 878_300_338
