"""What a model is and needs, from its configuration alone: no weight is read."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from osler.errors import ModelNotFoundError
from osler.models import config as configs
from osler.models.config import SLIDING, MedGemmaConfig, MedSiglipConfig, TextConfig
from osler.models.hf_config import read_medgemma_config, read_medsiglip_config
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.tasks.checkpoint_extras import config_field
from osler.tasks.locate import CONFIG_FILES, locate

NAMED: dict[str, Callable[[], MedGemmaConfig | MedSiglipConfig]] = {
    "medgemma_4b": configs.medgemma_4b,
    "medgemma_27b": configs.medgemma_27b,
    "medgemma_27b_text": configs.medgemma_27b_text,
    "medgemma_nano": configs.medgemma_nano,
    "medsiglip_448": configs.medsiglip_448,
    "medsiglip_nano": configs.medsiglip_nano,
}
DTYPE_BYTES = {"bfloat16": 2, "float32": 4}
CONTEXTS = (2048, 8192, 32_768, 131_072)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Sizes of one model.

    Attributes:
        name: as it was asked for.
        family: "medgemma" or "medsiglip".
        version: "1" or "1.5" of a MedGemma; None of a MedSigLIP.
        parameters: count of each part, shared ones once.
        image_size_px: side of the square that the model sees; None for text only.
        tokens_per_image: how much of the context one image takes; None where that means nothing.
        context_tokens: the most tokens of a prompt, or of one text of an encoder.
        weights_bytes: dtype to memory of the weights.
        cache_bytes: dtype to context length to memory of keys and values, one sequence.
    """

    name: str
    family: str
    version: str | None
    parameters: dict[str, int]
    image_size_px: int | None
    tokens_per_image: int | None
    context_tokens: int
    weights_bytes: dict[str, int]
    cache_bytes: dict[str, dict[int, int]]


def model_info(name: str) -> ModelInfo:
    """Describe a model.

    Args:
        name: a named configuration such as "medgemma_4b", or what `osler.load` takes.

    Raises:
        ModelNotFoundError: neither.
        CheckpointError: the folder's `config.json` describes no model of the family.
    """
    config = NAMED[name]() if name in NAMED else _read_config(name)
    with torch.device("meta"):
        model = MedGemma(config) if isinstance(config, MedGemmaConfig) else MedSiglip(config)
    parameters = {
        part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()
    }
    parameters |= {name: p.numel() for name, p in model.named_parameters(recurse=False)}
    total = sum(parameters.values())
    cache_bytes: dict[str, dict[int, int]] = {}
    text, vision = config.text_config, config.vision_config
    if isinstance(text, TextConfig):
        lengths = [n for n in CONTEXTS if n < text.max_position_embeddings]
        lengths.append(text.max_position_embeddings)
        cache_bytes = {
            dtype: {length: cache_numbers(text, length) * size for length in lengths}
            for dtype, size in DTYPE_BYTES.items()
        }
    tokens_per_image = None
    if isinstance(config, MedGemmaConfig) and vision is not None:
        tokens_per_image = config.mm_tokens_per_image
    return ModelInfo(
        name=name,
        family="medgemma" if isinstance(config, MedGemmaConfig) else "medsiglip",
        version=config.medgemma_version if isinstance(config, MedGemmaConfig) else None,
        parameters=parameters,
        image_size_px=vision.image_size if vision else None,
        tokens_per_image=tokens_per_image,
        context_tokens=text.max_position_embeddings,
        weights_bytes={dtype: total * size for dtype, size in DTYPE_BYTES.items()},
        cache_bytes=cache_bytes,
    )


def cache_numbers(text: TextConfig, length: int) -> int:
    """Count the keys and values of one sequence; local layers hold a window of it at most.

    >>> cache_numbers(configs.medgemma_4b().text_config, 8192)
    144703488
    """
    positions = sum(
        min(length, text.sliding_window) if kind == SLIDING else length for kind in text.layer_types
    )
    return 2 * positions * text.num_key_value_heads * text.head_dim


def _read_config(name: str) -> MedGemmaConfig | MedSiglipConfig:
    try:
        folder = locate(name, "medgemma", CONFIG_FILES)
    except ModelNotFoundError as error:
        if "/" in name:
            raise
        raise ModelNotFoundError(f"{error}, nor one of {', '.join(NAMED)}") from None
    if config_field(folder, "model_type") == "siglip":
        return read_medsiglip_config(folder)
    return read_medgemma_config(folder)
