"""Osler's models beside `transformers`' with the same random weights, for parity tests.

Shapes: B batch, L positions, T keys, V vocabulary, N images, M texts, C channels, S image side.
"""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from osler.models.config import FULL, SLIDING, MedGemmaConfig, MedSiglipConfig
from osler.models.hf_config import CONFIG_FILE, medgemma_json, medsiglip_json
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.testing.models import randomise


@dataclass(frozen=True)
class MedGemmaPair:
    """The same model twice."""

    ours: MedGemma
    theirs: Any

    def their_logits(
        self, ids_BL: Tensor, pixels_NCSS: Tensor | None = None, real_BL: Tensor | None = None
    ) -> Tensor:
        """Float32 (B, L, V) of the reference with the masks that it builds itself."""
        images = {}
        if pixels_NCSS is not None:
            images = {
                "pixel_values": pixels_NCSS.to(self.theirs.dtype),
                "token_type_ids": (ids_BL == self.ours.config.image_token_id).long(),
            }
        positions = None
        if real_BL is not None:  # as its `generate` does
            positions = (real_BL.cumsum(dim=1) - 1).clamp(min=0)
        output = self.theirs(
            input_ids=ids_BL, attention_mask=real_BL, position_ids=positions, **images
        )
        logits: Tensor = output.logits
        return logits.float()

    def their_logits_by_definition(self, ids_BL: Tensor, pixels_NCSS: Tensor) -> Tensor:
        """Float32 (B, L, V) of the reference with `masks_by_definition` instead of its own."""
        output = self.theirs(
            input_ids=ids_BL,
            pixel_values=pixels_NCSS,
            attention_mask=masks_by_definition(self.ours.config, ids_BL),
        )
        logits: Tensor = output.logits
        return logits.float()


@dataclass(frozen=True)
class MedSiglipPair:
    """The same encoder pair twice."""

    ours: MedSiglip
    theirs: Any


def medgemma_pair(config: MedGemmaConfig, dtype: torch.dtype = torch.float32) -> MedGemmaPair:
    """Build both models from one description."""
    json = medgemma_json(config, "float32")[CONFIG_FILE]
    multimodal = config.vision_config is not None
    if multimodal:
        theirs = transformers.Gemma3ForConditionalGeneration(transformers.Gemma3Config(**json))
    else:
        theirs = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**json))
    _randomise(theirs, dtype)
    outer, inner = ("model.", "") if multimodal else ("model.", "language_model.")
    weights = {
        inner + key.removeprefix(outer): tensor
        for key, tensor in theirs.state_dict().items()
        if key != "lm_head.weight"
    }
    ours = MedGemma(config).to(dtype)
    ours.load_state_dict(weights)
    return MedGemmaPair(ours.eval(), theirs.eval())


def medsiglip_pair(config: MedSiglipConfig, dtype: torch.dtype = torch.float32) -> MedSiglipPair:
    """Build both models from one description."""
    json = medsiglip_json(config, "float32")[CONFIG_FILE]
    theirs = transformers.SiglipModel(transformers.SiglipConfig(**json))
    _randomise(theirs, dtype)
    weights = {
        key.replace("vision_model.head.", "vision_head."): tensor
        for key, tensor in theirs.state_dict().items()
    }
    ours = MedSiglip(config).to(dtype)
    ours.load_state_dict(weights)
    return MedSiglipPair(ours.eval(), theirs.eval())


def masks_by_definition(config: MedGemmaConfig, ids_BL: Tensor) -> dict[str, Tensor]:
    """The masks, one entry at a time, from the definition in `attention_mask.py`.

    Returns:
        bool (B, 1, L, L) for each kind of layer.
    """
    batch, length = ids_BL.shape
    masks = {}
    for kind, window in ((FULL, length), (SLIDING, config.text_config.sliding_window)):
        mask_B1LL = torch.zeros(batch, 1, length, length, dtype=torch.bool)
        for row, ids in enumerate(ids_BL.tolist()):
            images = _images(ids, config)
            for query in range(length):
                for key in range(length):
                    same_image = images[query] is not None and images[query] == images[key]
                    visible = (key <= query or same_image) and query - key < window
                    mask_B1LL[row, 0, query, key] = visible
        masks[kind] = mask_B1LL
    return masks


def _images(ids: list[int], config: MedGemmaConfig) -> list[int | None]:
    """Which image each position belongs to, counted off by the tokens of one image."""
    images: list[int | None] = []
    seen = 0
    for token in ids:
        is_image = token == config.image_token_id
        images.append(seen // config.mm_tokens_per_image if is_image else None)
        seen += is_image
    return images


def _randomise(model: nn.Module, dtype: torch.dtype) -> None:
    """Random weights in `dtype`; buffers, such as rotary frequencies, stay in float32."""
    randomise(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
