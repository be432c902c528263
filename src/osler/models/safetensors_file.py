"""The weight files of a Hugging Face folder: opened, checked and mapped, never copied.

A header is checked (by the safetensors library: length, JSON, known types, offsets that lie in the
file and cover it without overlap) before any weight is looked at. What `read` returns is the file
itself mapped into memory: pages load when used, and writing to them never reaches the file. So a
file must not be cut short while a model uses it; saving replaces files and never writes into them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from osler.errors import CorruptFileError, MissingKeyError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, known by its header; `dtype` is safetensors' name of it ("BF16")."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: str
    _file: Any  # safe_open, whose methods have no types

    def read(self) -> Tensor:
        """The values, mapped from the file."""
        values: Tensor = self._file.get_tensor(self.key)
        return values


def open_weights(folder: Path) -> dict[str, StoredTensor]:
    """Open the weights of a folder, a single file or shards with an index.

    Returns:
        Key to tensor, over all files.

    Raises:
        CorruptFileError: no safetensors file but perhaps a pickle, a file that is truncated or has
            a broken header, or a key that two shards hold.
        MissingKeyError: a shard that the index names is not there.
    """
    stored: dict[str, StoredTensor] = {}
    for path in _weight_paths(folder):
        for key, tensor in open_file(path).items():
            if key in stored:
                raise CorruptFileError(f"{path}: {key} is in {stored[key].path.name} as well")
            stored[key] = tensor
    return stored


def open_file(path: Path) -> dict[str, StoredTensor]:
    """Open one safetensors file.

    Returns:
        Key to tensor.

    Raises:
        CorruptFileError: not there, truncated, a broken header, or a pickle.
    """
    file = _open(path)
    stored = {}
    for key in file.keys():  # noqa: SIM118 - not a mapping
        header = file.get_slice(key)
        shape, dtype = tuple(header.get_shape()), str(header.get_dtype())
        stored[key] = StoredTensor(path, key, shape, dtype, file)
    return stored


def write_weights(tensors: Mapping[str, Tensor], folder: Path, max_shard_bytes: int) -> None:
    """Write weights into an empty folder, as one file or as shards with an index.

    Args:
        tensors: key to tensor on any device; no two share memory.
        folder: where to.
        max_shard_bytes: size above which a new shard begins.
    """
    shards = list(_shards(tensors, max_shard_bytes))
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = WEIGHTS_FILE
        if len(shards) > 1:
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        on_cpu = {key: tensor.detach().cpu().contiguous() for key, tensor in shard.items()}
        path = folder / name
        path.touch()
        mode = path.stat().st_mode
        save_file(on_cpu, path, metadata={"format": "pt"})
        path.chmod(mode)  # the library leaves files that only their owner may read
        weight_map |= dict.fromkeys(shard, name)
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def _weight_paths(folder: Path) -> Iterable[Path]:
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    index = folder / INDEX_FILE
    if index.exists():
        return _indexed_paths(index)
    if pickles := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
        raise CorruptFileError(
            f"{pickles[0]}: a pickle, which could run code when opened; "
            f"Osler reads {WEIGHTS_FILE} only"
        )
    raise CorruptFileError(f"{folder}: no {WEIGHTS_FILE} and no {INDEX_FILE}")


def _indexed_paths(index: Path) -> Iterable[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{index}: not an index of weights") from error
    for name in names:
        # An index names neighbours; anything else could point the reader out of the folder.
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix != SUFFIX:
            raise CorruptFileError(f"{index}: {name!r} does not name a {SUFFIX} file beside it")
        if not (index.parent / name).exists():
            raise MissingKeyError(f"{index.parent / name}: not there, though {index.name} names it")
    return [index.parent / name for name in names]


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CorruptFileError(f"{path}: {_what_is_wrong(path, error)}") from error
    except OSError as error:
        raise CorruptFileError(f"{path}: cannot be read as a file") from error


def _what_is_wrong(path: Path, error: SafetensorError) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    header_bytes = int.from_bytes(start[:8], "little")
    if not start:
        return "empty"
    if start.startswith(b"version https:/"):
        return "a Git LFS pointer; the weights themselves were not downloaded"
    if start.startswith(b"PK\x03\x04") or (start[0] == 0x80 and header_bytes > 2**32):
        return "a pickle, which could run code when opened, not a safetensors file"
    return f"truncated or corrupted safetensors file ({error})"


def _shards(tensors: Mapping[str, Tensor], max_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size_bytes = 0
    for key, tensor in tensors.items():
        if shard and size_bytes + tensor.nbytes > max_bytes:
            yield shard
            shard, size_bytes = {}, 0
        shard[key] = tensor
        size_bytes += tensor.nbytes
    yield shard
