"""`config.json` and `generation_config.json` of Hugging Face folders, both ways.

Released files leave out what equals the defaults of `transformers`' configuration classes, so the
defaults here are theirs and not those of `config.py`. Both spellings are read: `rope_scaling` with
`sliding_window_pattern` (before 5) and `rope_parameters` with `layer_types` (since); both are
written, so that old and new readers see the same sizes.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from osler.errors import CheckpointError, CorruptFileError
from osler.models.config import (
    MedGemmaConfig,
    MedSiglipConfig,
    SiglipTextConfig,
    TextConfig,
    VisionConfig,
    layer_pattern,
)

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"

_ACTIVATION = "gelu_pytorch_tanh"


@dataclass(frozen=True)
class _Section:
    """One object of a JSON file; `where` names the file and the object in messages."""

    values: Mapping[str, Any]
    where: str

    def section(self, name: str) -> "_Section":
        values = self._get(name, {})
        if not isinstance(values, dict):
            raise CheckpointError(f"{self.where}: {name} is not an object")
        return _Section(values, f"{self.where}: {name}")

    def size(self, name: str, default: int) -> int:
        return self._integer(name, default, at_least=1)

    def token(self, name: str, default: int) -> int:
        return self._integer(name, default, at_least=0)

    def number(self, name: str, default: float) -> float:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CheckpointError(f"{self.where}: {name} is {value!r}, not a number")
        if not (math.isfinite(value) and value > 0):
            raise CheckpointError(f"{self.where}: {name} is {value!r}, not above 0")
        return value

    def words(self, name: str) -> tuple[str, ...]:
        value = self._get(name, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise CheckpointError(f"{self.where}: {name} is not a list of names")
        return tuple(value)

    def tokens(self, name: str) -> tuple[int, ...]:
        value = self._get(name, [])
        listed = value if isinstance(value, list) else [value]
        return tuple(_Section({name: one}, self.where).token(name, 0) for one in listed)

    def must_be(self, name: str, *allowed: object) -> None:
        """Refuse a field that asks for something other than what Osler computes."""
        value = self._get(name, None)
        if value is not None and value not in allowed:
            wanted = " or ".join(map(repr, allowed))
            raise CheckpointError(
                f"{self.where}: {name} is {value!r}; Osler computes {wanted} only"
            )

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def _integer(self, name: str, default: int, at_least: int) -> int:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise CheckpointError(f"{self.where}: {name} is {value!r}, not an integer")
        if value < at_least:
            raise CheckpointError(f"{self.where}: {name} is {value}, less than {at_least}")
        return value


def read_medgemma_config(folder: Path) -> MedGemmaConfig:
    """Read the sizes and token ids of a MedGemma or Gemma 3 folder.

    Args:
        folder: holds `config.json` and perhaps `generation_config.json`, whose end tokens win.

    Returns:
        The configuration; without `vision_config` for `Gemma3ForCausalLM`.

    Raises:
        CorruptFileError: `config.json` is missing or is not JSON.
        CheckpointError: it describes another model, or a variant that Osler does not compute.
    """
    top = _read(folder / CONFIG_FILE)
    multimodal = _model_type(top, "gemma3", "gemma3_text") == "gemma3"
    text = top.section("text_config") if multimodal else top
    text.must_be("model_type", "gemma3_text")
    for section in (top, text):
        section.must_be("tie_word_embeddings", True)
        if section.values.get("quantization_config"):
            raise CheckpointError(f"{section.where}: quantization_config: only plain weights load")
    try:
        return MedGemmaConfig(
            text_config=_text_config(text),
            vision_config=_vision_config(top.section("vision_config")) if multimodal else None,
            mm_tokens_per_image=top.size("mm_tokens_per_image", 256),
            image_token_id=_image_token(top, "image", 262_144),
            boi_token_id=_image_token(top, "boi", 255_999),
            eoi_token_id=_image_token(top, "eoi", 256_000),
            bos_token_id=top.token("bos_token_id", text.token("bos_token_id", 2)),
            pad_token_id=top.token("pad_token_id", text.token("pad_token_id", 0)),
            eos_token_ids=_eos_tokens(folder, top, text),
            medgemma_version=_version(folder, top),
        )
    except ValueError as error:
        raise CheckpointError(f"{top.where}: {error}") from error


def read_medsiglip_config(folder: Path) -> MedSiglipConfig:
    """Read the sizes of a MedSigLIP or SigLIP folder.

    Raises:
        CorruptFileError: `config.json` is missing or is not JSON.
        CheckpointError: it describes another model, or a variant that Osler does not compute.
    """
    top = _read(folder / CONFIG_FILE)
    _model_type(top, "siglip")
    text = top.section("text_config")
    text.must_be("model_type", "siglip_text_model")
    text.must_be("hidden_act", _ACTIVATION)
    hidden_size = text.size("hidden_size", 768)
    try:
        return MedSiglipConfig(
            text_config=SiglipTextConfig(
                hidden_size=hidden_size,
                intermediate_size=text.size("intermediate_size", 3072),
                num_hidden_layers=text.size("num_hidden_layers", 12),
                num_attention_heads=text.size("num_attention_heads", 12),
                vocab_size=text.size("vocab_size", 32_000),
                max_position_embeddings=text.size("max_position_embeddings", 64),
                projection_size=text.size("projection_size", hidden_size),
                layer_norm_eps=text.number("layer_norm_eps", 1e-6),
                pad_token_id=text.token("pad_token_id", 1),
            ),
            vision_config=_vision_config(top.section("vision_config")),
        )
    except ValueError as error:
        raise CheckpointError(f"{top.where}: {error}") from error


def medgemma_json(config: MedGemmaConfig, dtype: str) -> dict[str, dict[str, Any]]:
    """Describe a MedGemma as `transformers` does.

    Args:
        config: the model's sizes.
        dtype: of the weights, as "bfloat16".

    Returns:
        File name to content, of `config.json` and `generation_config.json`.
    """
    tokens: dict[str, Any] = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids),
        "pad_token_id": config.pad_token_id,
    }
    text = _text_json(config.text_config) | tokens
    if config.vision_config is None:
        sizes = {"architectures": ["Gemma3ForCausalLM"], **text}
    else:
        sizes = {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "text_config": text,
            "vision_config": _vision_json(config.vision_config) | {"vision_use_head": False},
            "mm_tokens_per_image": config.mm_tokens_per_image,
            "image_token_index": config.image_token_id,
            "boi_token_index": config.boi_token_id,
            "eoi_token_index": config.eoi_token_id,
            "tie_word_embeddings": True,
            **tokens,
        }
    sizes |= {"dtype": dtype, "medgemma_version": config.medgemma_version}
    return {CONFIG_FILE: sizes, GENERATION_FILE: tokens}


def medsiglip_json(config: MedSiglipConfig, dtype: str) -> dict[str, dict[str, Any]]:
    """Describe a MedSigLIP as `transformers` does; arguments and result as `medgemma_json`."""
    text = asdict(config.text_config) | {
        "model_type": "siglip_text_model",
        "hidden_act": _ACTIVATION,
        # SigLIP pads with its end token and begins with nothing.
        "bos_token_id": None,
        "eos_token_id": config.text_config.pad_token_id,
    }
    sizes = {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": text,
        "vision_config": _vision_json(config.vision_config) | {"vision_use_head": True},
        "dtype": dtype,
    }
    return {CONFIG_FILE: sizes}


def _read(path: Path) -> _Section:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise CorruptFileError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise CorruptFileError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CorruptFileError(f"{path}: not a JSON object")
    return _Section(values, str(path))


def _model_type(top: _Section, *wanted: str) -> str:
    found = top.values.get("model_type")
    if found not in wanted:
        raise CheckpointError(f"{top.where}: model_type is {found!r}, not {' or '.join(wanted)}")
    return str(found)


def _text_config(text: _Section) -> TextConfig:
    text.must_be("hidden_activation", _ACTIVATION)
    text.must_be("attention_bias", False)
    text.must_be("use_bidirectional_attention", False)
    text.must_be("attn_logit_softcapping", None)
    text.must_be("final_logit_softcapping", None)
    layers = text.size("num_hidden_layers", 26)
    kinds = text.words("layer_types")
    return TextConfig(
        hidden_size=text.size("hidden_size", 2304),
        intermediate_size=text.size("intermediate_size", 9216),
        num_hidden_layers=layers,
        num_attention_heads=text.size("num_attention_heads", 8),
        num_key_value_heads=text.size("num_key_value_heads", 4),
        head_dim=text.size("head_dim", 256),
        query_pre_attn_scalar=text.number("query_pre_attn_scalar", 256),
        vocab_size=text.size("vocab_size", 262_208),
        sliding_window=text.size("sliding_window", 4096),
        layer_types=kinds or layer_pattern(layers, text.size("sliding_window_pattern", 6)),
        max_position_embeddings=text.size("max_position_embeddings", 131_072),
        rms_norm_eps=text.number("rms_norm_eps", 1e-6),
        **_rope(text),
    )


def _rope(text: _Section) -> dict[str, float]:
    """The three numbers of rotary embedding, from either spelling; the older one wins, as there."""
    newer = text.section("rope_parameters")
    if unknown := sorted(set(newer.values) - {"full_attention", "sliding_attention"}):
        raise CheckpointError(f"{newer.where}: {unknown[0]} is not a kind of layer")
    older = text.section("rope_scaling")
    local, full = newer.section("sliding_attention"), newer.section("full_attention")
    full = _Section({**full.values, **older.values}, older.where if older.values else full.where)
    if _rope_factor(local) != 1:
        raise CheckpointError(f"{local.where}: local layers have no rope scaling")
    return {
        "rope_theta": full.number("rope_theta", text.number("rope_theta", 1_000_000.0)),
        "rope_local_base_freq": local.number(
            "rope_theta", text.number("rope_local_base_freq", 10_000.0)
        ),
        "rope_scaling_factor": _rope_factor(full),
    }


def _rope_factor(rope: _Section) -> float:
    kind = rope.values.get("rope_type", "default")
    if kind == "default" and "factor" not in rope.values:
        return 1.0
    if kind != "linear" or "factor" not in rope.values:
        raise CheckpointError(
            f"{rope.where}: rope_type is {kind!r}; Osler has 'linear' with a factor"
        )
    return rope.number("factor", 1.0)


def _vision_config(vision: _Section) -> VisionConfig:
    vision.must_be("model_type", "siglip_vision_model")
    vision.must_be("hidden_act", _ACTIVATION)
    return VisionConfig(
        hidden_size=vision.size("hidden_size", 768),
        intermediate_size=vision.size("intermediate_size", 3072),
        num_hidden_layers=vision.size("num_hidden_layers", 12),
        num_attention_heads=vision.size("num_attention_heads", 12),
        image_size=vision.size("image_size", 224),
        patch_size=vision.size("patch_size", 16),
        num_channels=vision.size("num_channels", 3),
        layer_norm_eps=vision.number("layer_norm_eps", 1e-6),
    )


def _image_token(top: _Section, name: str, default: int) -> int:
    return top.token(f"{name}_token_index", top.token(f"{name}_token_id", default))


def _eos_tokens(folder: Path, top: _Section, text: _Section) -> tuple[int, ...]:
    path = folder / GENERATION_FILE
    generation = _read(path).tokens("eos_token_id") if path.exists() else ()
    return generation or top.tokens("eos_token_id") or text.tokens("eos_token_id") or (1,)


def _version(folder: Path, top: _Section) -> str:
    """The key that Osler writes, or else a "1.5" in the model's name or its folder's.

    Folders of the hub's cache end in a hash, so a parent named after the model counts too.
    """
    written = top.values.get("medgemma_version")
    if written is not None:
        return str(written)
    names = [str(top.values.get("_name_or_path", "")), folder.absolute().name]
    names += re.findall(r"medgemma[^/]*", str(folder.absolute()), re.IGNORECASE)
    return "1.5" if any("1.5" in name for name in names) else "1"


def _text_json(text: TextConfig) -> dict[str, Any]:
    values = asdict(text) | {"layer_types": list(text.layer_types)}
    factor = values.pop("rope_scaling_factor")
    scaling: dict[str, Any] = {"rope_type": "default"}
    if factor != 1:
        scaling = {"rope_type": "linear", "factor": factor}
        values["rope_scaling"] = scaling
    values["rope_parameters"] = {
        "full_attention": scaling | {"rope_theta": text.rope_theta},
        "sliding_attention": {"rope_type": "default", "rope_theta": text.rope_local_base_freq},
    }
    # An integer in `transformers`, a scale in ours.
    if float(text.query_pre_attn_scalar).is_integer():
        values["query_pre_attn_scalar"] = int(text.query_pre_attn_scalar)
    return values | {
        "model_type": "gemma3_text",
        "hidden_activation": _ACTIVATION,
        "tie_word_embeddings": True,
    }


def _vision_json(vision: VisionConfig) -> dict[str, Any]:
    return asdict(vision) | {"model_type": "siglip_vision_model", "hidden_act": _ACTIVATION}
