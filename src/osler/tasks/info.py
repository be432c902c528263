"""What a model is and needs, from its configuration alone: no weight is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from osler.errors import CheckpointError, ModelNotFoundError
from osler.models import config as configs
from osler.models.config import SLIDING, MedGemmaConfig, MedSiglipConfig, TextConfig
from osler.models.hf_config import read_medgemma_config, read_medsiglip_config
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.native.packed_file import PACKED_FILE, PackedFile
from osler.tasks.checkpoint_extras import config_field
from osler.tasks.locate import CONFIG_FILES, locate
from osler.tasks.packed_folder import is_packed

NAMED: dict[str, Callable[[], MedGemmaConfig | MedSiglipConfig]] = {
    "medgemma_4b": configs.medgemma_4b,
    "medgemma_27b": configs.medgemma_27b,
    "medgemma_27b_text": configs.medgemma_27b_text,
    "medgemma_nano": configs.medgemma_nano,
    "medsiglip_448": configs.medsiglip_448,
    "medsiglip_nano": configs.medsiglip_nano,
}
PACKED = "packed"
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
        formats: of a packed model, part to format, as "decoder" to "int4"; else empty.
        weights_bytes: dtype to memory of the weights; of a packed model only "packed", the file.
        cache_bytes: dtype to context length to memory of keys and values, one sequence.
    """

    name: str
    family: str
    version: str | None
    parameters: dict[str, int]
    image_size_px: int | None
    tokens_per_image: int | None
    context_tokens: int
    formats: dict[str, str]
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
    folder = None if name in NAMED else _locate(name)
    config = NAMED[name]() if folder is None else _read_config(folder)
    with torch.device("meta"):
        model = MedGemma(config) if isinstance(config, MedGemmaConfig) else MedSiglip(config)
    parameters = {
        part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()
    }
    parameters |= {name: p.numel() for name, p in model.named_parameters(recurse=False)}
    total = sum(parameters.values())
    formats: dict[str, str] = {}
    weights_bytes = {dtype: total * size for dtype, size in DTYPE_BYTES.items()}
    cache_dtypes = DTYPE_BYTES
    if folder is not None and is_packed(folder):
        file = PackedFile(folder / PACKED_FILE)
        formats = {
            part: str(file.about[part]) for part in ("decoder", "encoder") if file.about.get(part)
        }
        weights_bytes = {PACKED: file.size_bytes}
        cache_dtypes = {PACKED: DTYPE_BYTES["bfloat16"]}
    cache_bytes: dict[str, dict[int, int]] = {}
    text, vision = config.text_config, config.vision_config
    if isinstance(text, TextConfig):
        lengths = [n for n in CONTEXTS if n < text.max_position_embeddings]
        lengths.append(text.max_position_embeddings)
        cache_bytes = {
            dtype: {length: cache_numbers(text, length) * size for length in lengths}
            for dtype, size in cache_dtypes.items()
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
        formats=formats,
        weights_bytes=weights_bytes,
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


def verify(name: str, progress: Callable[[int, int], object] | None = None) -> int:
    """Compare the checksums of a packed model's weights.

    Args:
        name: the model, as `osler.load` takes it.
        progress: called with the number of bytes compared so far, and of all.

    Returns:
        The size of the file in bytes.

    Raises:
        CheckpointError: a damaged file, or a model that is not packed.
    """
    folder = _locate(name)
    if not is_packed(folder):
        raise CheckpointError(f"{folder}: not packed; only packed weights have checksums")
    file = PackedFile(folder / PACKED_FILE)
    total = file.size_bytes
    file.verify(None if progress is None else lambda done: progress(done, total))
    return total


def _locate(name: str) -> Path:
    try:
        return locate(name, "medgemma", CONFIG_FILES)
    except ModelNotFoundError as error:
        if "/" in name:
            raise
        raise ModelNotFoundError(f"{error}, nor one of {', '.join(NAMED)}") from None


def _read_config(folder: Path) -> MedGemmaConfig | MedSiglipConfig:
    if config_field(folder, "model_type") == "siglip":
        return read_medsiglip_config(folder)
    return read_medgemma_config(folder)
