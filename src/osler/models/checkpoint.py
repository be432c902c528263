"""Load and save models as Hugging Face folders.

The module is built without memory (on torch's meta device), every key and shape is compared with
the files' headers, and only then are the tensors put in place: mapped from the file where device
and type stay the same, converted one by one where not.
"""

import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from osler.errors import CheckpointError, MissingKeyError, ShapeMismatchError, UnusedKeyError
from osler.models.config import MedGemmaConfig, MedSiglipConfig
from osler.models.hf_config import (
    CONFIG_FILE,
    medgemma_json,
    medsiglip_json,
    read_medgemma_config,
    read_medsiglip_config,
)
from osler.models.key_layouts import (
    MEDGEMMA_LAYOUTS,
    MEDGEMMA_RELEASED,
    MEDGEMMA_TEXT,
    MEDSIGLIP,
    KeyLayout,
    closest,
)
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.models.safetensors_file import (
    INDEX_FILE,
    StoredTensor,
    open_weights,
    write_weights,
)

MAX_SHARD_BYTES = 5 * 10**9

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_EMBEDDING = "language_model.embed_tokens.weight"

Model = TypeVar("Model", bound=nn.Module)
Config = TypeVar("Config")


def load_medgemma(
    folder: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> MedGemma:
    """Load a MedGemma, or any Gemma 3, from a folder.

    Args:
        folder: `config.json` with `model.safetensors` or its shards, in any layout of
            `key_layouts`.
        dtype: of the weights in memory; None for the file's own.
        device: where to put them.

    Returns:
        The model, in evaluation mode.

    Raises:
        CorruptFileError: a file is missing, truncated, has a broken header or is a pickle.
        MissingKeyError: the files lack weights.
        UnusedKeyError: the files hold weights that the model has no place for.
        ShapeMismatchError: a weight has another shape than the configuration's.
        CheckpointError: the configuration or a type of weights is not one that Osler computes.
    """
    folder = Path(folder)
    model = _on_meta(MedGemma, read_medgemma_config(folder))
    return _load(model, folder, MEDGEMMA_LAYOUTS, dtype, torch.device(device))


def load_medsiglip(
    folder: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> MedSiglip:
    """Load a MedSigLIP, or any SigLIP, from a folder; arguments and errors as `load_medgemma`."""
    folder = Path(folder)
    model = _on_meta(MedSiglip, read_medsiglip_config(folder))
    return _load(model, folder, (MEDSIGLIP,), dtype, torch.device(device))


def open_medgemma(folder: str | Path) -> tuple[MedGemmaConfig, dict[str, StoredTensor]]:
    """Open a MedGemma without making a model of it.

    Returns:
        Its sizes, and its tensors under the names of `MedGemma`, all there and of the right shape;
        each is mapped from its file when read.

    Raises:
        CheckpointError: as `load_medgemma`.
    """
    folder = Path(folder)
    config = read_medgemma_config(folder)
    return config, _open(_on_meta(MedGemma, config), folder, MEDGEMMA_LAYOUTS)


def open_medsiglip(folder: str | Path) -> tuple[MedSiglipConfig, dict[str, StoredTensor]]:
    """Open a MedSigLIP without making a model of it; result and errors as `open_medgemma`."""
    folder = Path(folder)
    config = read_medsiglip_config(folder)
    return config, _open(_on_meta(MedSiglip, config), folder, (MEDSIGLIP,))


def save_medgemma(
    model: MedGemma, folder: str | Path, *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Save weights, `config.json` and `generation_config.json`.

    An interrupted save never looks like a model: `config.json` goes first and comes back last.

    Args:
        model: on any device.
        folder: created where it is not there; other files in it stay.
        max_shard_bytes: size above which the weights are split.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    layout = MEDGEMMA_TEXT if model.config.vision_config is None else MEDGEMMA_RELEASED
    dtype = str(model.language_model.embed_tokens.weight.dtype).removeprefix("torch.")
    _save(model, Path(folder), layout, medgemma_json(model.config, dtype), max_shard_bytes)


def save_medsiglip(
    model: MedSiglip, folder: str | Path, *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Save weights and `config.json`; arguments and errors as `save_medgemma`."""
    dtype = str(model.logit_scale.dtype).removeprefix("torch.")
    _save(model, Path(folder), MEDSIGLIP, medsiglip_json(model.config, dtype), max_shard_bytes)


class _Uninitialised(TorchFunctionMode):
    """Skip `torch.nn.init` while building: the values come from a file.

    On the meta device those functions have nothing to fill, yet import torch's compiler, which
    takes as long as importing torch.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _load(
    model: Model,
    folder: Path,
    layouts: Collection[KeyLayout],
    dtype: torch.dtype | None,
    device: torch.device,
) -> Model:
    """Fill a model that was built on the meta device."""
    stored = _open(model, folder, layouts)
    dtype = dtype or _only_dtype(folder, stored)
    tensors = {key: tensor.read().to(device, dtype) for key, tensor in stored.items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _on_meta(kind: Callable[[Config], Model], config: Config) -> Model:
    """A model without memory."""
    with torch.device("meta"), _Uninitialised():
        return kind(config)


def _open(
    model: nn.Module, folder: Path, layouts: Collection[KeyLayout]
) -> dict[str, StoredTensor]:
    """The tensors of a folder under the model's keys, compared with what it wants."""
    wanted = model.state_dict()
    stored = open_weights(folder)
    layout = closest(layouts, wanted, stored)
    _compare(folder, layout, wanted, stored)
    if layout.head in stored:
        _compare_head(stored[layout.head], stored[layout.in_file(_EMBEDDING)])
    return {key: stored[layout.in_file(key)] for key in wanted}


def _compare(
    folder: Path,
    layout: KeyLayout,
    wanted: Mapping[str, Tensor],
    stored: Mapping[str, StoredTensor],
) -> None:
    """Raise unless the files hold exactly the weights of the model."""
    shapes = {layout.in_file(key): tuple(tensor.shape) for key, tensor in wanted.items()}
    if missing := sorted(shapes.keys() - stored.keys()):
        raise MissingKeyError(f"{folder}: no file holds {_some(missing)}")
    if unused := sorted(stored.keys() - shapes.keys() - {layout.head}):
        raise UnusedKeyError(f"{stored[unused[0]].path}: nothing in the model is {_some(unused)}")
    if misshapen := [key for key, shape in shapes.items() if stored[key].shape != shape]:
        said = [f"{key} is {list(stored[key].shape)}, not {list(shapes[key])}" for key in misshapen]
        raise ShapeMismatchError(f"{stored[misshapen[0]].path}: {_some(said)}")
    for tensor in stored.values():
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(
                f"{tensor.path}: {tensor.key} is {tensor.dtype}; Osler loads {', '.join(_DTYPES)}"
            )


def _only_dtype(folder: Path, stored: Mapping[str, StoredTensor]) -> torch.dtype:
    names = sorted({tensor.dtype for tensor in stored.values()})
    if len(names) > 1:
        raise CheckpointError(f"{folder}: holds {' and '.join(names)}; name the dtype to load as")
    return _DTYPES[names[0]]


def _compare_head(head: StoredTensor, embedding: StoredTensor) -> None:
    """Refuse a head of its own: the models tie it with the embedding."""
    if head.shape != embedding.shape or not head.read().equal(embedding.read()):
        raise CheckpointError(
            f"{head.path}: {head.key} differs from {embedding.key}; Osler ties the two"
        )


def _some(items: list[str]) -> str:
    """The first three, and how many there are."""
    shown = ", ".join(items[:3])
    return shown if len(items) <= 3 else f"{shown} and {len(items) - 3} more"


def _save(
    model: nn.Module,
    folder: Path,
    layout: KeyLayout,
    descriptions: Mapping[str, Mapping[str, Any]],
    max_shard_bytes: int,
) -> None:
    tensors = {layout.in_file(key): tensor for key, tensor in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as name:
            staging = Path(name)
            write_weights(tensors, staging, max_shard_bytes)
            for file_name, content in descriptions.items():
                (staging / file_name).write_text(json.dumps(content, indent=2) + "\n")
            _replace(folder, staging)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written ({error})") from error


def _replace(folder: Path, staging: Path) -> None:
    """Move a complete set of files in; without `config.json` a folder is no model."""
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    for stale in [folder / INDEX_FILE, *folder.glob("model*.safetensors")]:
        stale.unlink(missing_ok=True)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == CONFIG_FILE):
        path.replace(folder / path.name)
