"""Adapters as files: PEFT's `adapter_config.json` and `adapter_model.safetensors`.

PEFT names a factor by its place in the module tree of `transformers`, which moved between versions;
we write the tree that every version since 4.52 loads, and read all that we know.

Source: the PEFT library, "PEFT checkpoint format" in its developer guides.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from osler.errors import (
    CheckpointError,
    CorruptFileError,
    MissingKeyError,
    PromptError,
    ShapeMismatchError,
    UnsupportedError,
    UnusedKeyError,
)
from osler.models.checkpoint import load_medgemma
from osler.models.key_layouts import MEDGEMMA_LAYOUTS, MEDGEMMA_MODULES, MEDGEMMA_TEXT, closest
from osler.models.lora import LoraConfig, Matrix, add_lora, lora_layers, matrices
from osler.models.medgemma import MedGemma
from osler.models.nf4 import hold_in_4_bits
from osler.models.safetensors_file import StoredTensor, open_file
from osler.preprocess.json_file import read_json_object, read_json_object_if_there
from osler.tasks.locate import locate
from osler.tasks.packed_folder import is_packed

CONFIG_FILE = "adapter_config.json"
RECORD = "finetune.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTORS = ("lora_A", "lora_B")
# Settings under which an adapter is more than a sum of products, or other products than ours, and
# the values under which it is not.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "bias": ("none",),
    "lora_bias": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
    "use_bdlora": (None, False),
    "fan_in_fan_out": (False,),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None,),
}


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / CONFIG_FILE).is_file()


def base_model(folder: Path) -> str:
    """The model that an adapter was trained on, as its file names it.

    Raises:
        CheckpointError: the file is missing or damaged, or names none.
    """
    path = folder / CONFIG_FILE
    name = read_json_object(path).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{path}: names no base model; say which with --model")
    return name


def base_folder(folder: Path) -> Path:
    """Where the model is that an adapter names.

    Raises:
        ModelNotFoundError: it is not there.
        CheckpointError: none is named, or its weights are packed.
    """
    base = locate(base_model(folder), "medgemma")
    if is_packed(base):
        raise CheckpointError(
            f"{base}: packed weights take no adapter; give the checkpoint they were packed from"
        )
    return base


def load_adapted(
    folder: Path,
    base: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> MedGemma:
    """Load a model with an adapter beside its matrices.

    Args:
        folder: of the adapter. One that was trained over a base in 4 bits ("qlora") gets it so.
        base: folder of its model.
        dtype: of the base's weights; None for the file's own.
        device: where to put all.

    Returns:
        The model, in evaluation mode.

    Raises:
        CheckpointError: as `load_medgemma` and `load_adapter`.
        UnsupportedError: as `load_adapter`.
    """
    model = load_medgemma(base, dtype=dtype, device=device)
    if read_json_object_if_there(folder / RECORD).get("method") == "qlora":
        hold_in_4_bits(model)
    load_adapter(model, folder)
    return model.eval()


def save_adapter(model: MedGemma, config: LoraConfig, folder: Path, *, base: str) -> None:
    """Write a model's adapters for PEFT; an interrupted save never looks like an adapter.

    Args:
        model: with adapters of this configuration.
        config: theirs.
        folder: created where it is not there; other files in it stay.
        base: what the model was loaded by.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    layout = MEDGEMMA_TEXT if model.config.vision_config is None else MEDGEMMA_MODULES
    tensors: dict[str, Tensor] = {}
    for name, layer in lora_layers(model):
        for factor, linear in zip(_FACTORS, (layer.lora_A, layer.lora_B), strict=True):
            key = f"{_PREFIX}{layout.in_file(name)}.{factor}.weight"
            tensors[key] = linear.weight.detach().cpu().contiguous()
    last_names = sorted({name.rpartition(".")[2] for name, _ in lora_layers(model)})
    values = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": config.rank,
        "target_modules": last_names,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": config.rank_stabilised,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
            text = json.dumps(values, indent=2) + "\n"
            (Path(staging) / CONFIG_FILE).write_text(text, encoding="utf-8")
            weights = Path(staging) / WEIGHTS_FILE
            weights.touch()
            mode = weights.stat().st_mode
            save_file(tensors, weights, metadata={"format": "pt"})
            weights.chmod(mode)  # the library leaves files that only their owner may read
            (folder / CONFIG_FILE).unlink(missing_ok=True)
            for name in (WEIGHTS_FILE, CONFIG_FILE):
                (Path(staging) / name).replace(folder / name)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{folder}: cannot be written ({reason})") from error


def load_adapter(model: MedGemma, folder: Path) -> LoraConfig:
    """Put an adapter that we or PEFT saved beside the matrices of its model.

    Args:
        model: the base, changed in place.
        folder: with the adapter's two files.

    Returns:
        How the adapter is built.

    Raises:
        CheckpointError: a file that is missing, damaged, or of another model.
        UnsupportedError: an adapter of a kind that Osler does not compute.
    """
    config = _read_config(folder / CONFIG_FILE)
    factors = _open_factors(folder / WEIGHTS_FILE, matrices(model), config.rank)
    add_lora(model, config, factors)
    with torch.no_grad():
        for name, layer in lora_layers(model):
            layer.lora_A.weight.copy_(factors[name][0].read())
            layer.lora_B.weight.copy_(factors[name][1].read())
    return config


def _read_config(path: Path) -> LoraConfig:
    values = read_json_object(path)
    if (kind := values.get("peft_type")) != "LORA":
        raise UnsupportedError(f"{path}: peft_type is {kind!r}; Osler takes 'LORA'")
    for field, neutral in _NEUTRAL.items():
        if field in values and values[field] not in neutral:
            raise UnsupportedError(f"{path}: {field} is set, which Osler's adapters have not")
    rank = values.get("r")
    if not isinstance(rank, int):
        raise CheckpointError(f"{path}: r is no number")
    try:
        return LoraConfig(
            rank=rank,
            alpha=_number(values, "lora_alpha", path),
            dropout=_number(values, "lora_dropout", path),
            rank_stabilised=values.get("use_rslora") is True,
        )
    except PromptError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _number(values: Mapping[str, Any], field: str, path: Path) -> float:
    if not isinstance(number := values.get(field), int | float):
        raise CheckpointError(f"{path}: {field} is no number")
    return number


def _open_factors(
    path: Path, layers: Mapping[str, Matrix], rank: int
) -> dict[str, tuple[StoredTensor, StoredTensor]]:
    """Both factors of each layer that the file has any of, compared with the model."""
    if not path.is_file():
        raise CorruptFileError(f"{path}: no such file; Osler reads adapters as safetensors only")
    stored = open_file(path)
    # Which layout it is in shows at the first factor; the other must then be there too.
    modules = {key.removeprefix(_PREFIX).removesuffix(".lora_A.weight") for key in stored}
    layout = closest(MEDGEMMA_LAYOUTS, layers, modules)
    found: dict[str, tuple[StoredTensor, StoredTensor]] = {}
    for name, layer in layers.items():
        keys = [f"{_PREFIX}{layout.in_file(name)}.{factor}.weight" for factor in _FACTORS]
        pair = [stored.pop(key) for key in keys if key in stored]
        if len(pair) == 1:
            raise MissingKeyError(f"{path}: {pair[0].key} is without its other factor")
        if not pair:
            continue
        shapes = ((rank, layer.in_features), (layer.out_features, rank))
        for tensor, shape in zip(pair, shapes, strict=True):
            if tensor.shape != shape:
                raise ShapeMismatchError(
                    f"{path}: {tensor.key} is {list(tensor.shape)}, not {list(shape)}"
                )
        found[name] = (pair[0], pair[1])
    if stored:
        raise UnusedKeyError(f"{path}: nothing in the model is {min(stored)}")
    if not found:
        raise MissingKeyError(f"{path}: holds no adapter")
    return found
