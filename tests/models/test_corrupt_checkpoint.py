"""Folders that are not what they say: each a one-line error that names the file, and the key."""

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from osler.errors import (
    CheckpointError,
    CorruptFileError,
    MissingKeyError,
    ShapeMismatchError,
    UnusedKeyError,
)
from osler.models.checkpoint import load_medgemma, load_medsiglip, save_medgemma, save_medsiglip
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.models.safetensors_file import open_weights
from osler.testing.models import tiny_medgemma, tiny_medsiglip

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
Q_PROJ = "language_model.model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    save_medgemma(MedGemma(tiny_medgemma()), folder)
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    save_medgemma(MedGemma(tiny_medgemma()), folder, max_shard_bytes=100_000)
    return folder


@pytest.fixture
def folder(single: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(single, tmp_path / "model"))


@pytest.fixture
def shards(sharded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharded, tmp_path / "model"))


def refused(folder: Path, error: type[CheckpointError], *said: str) -> None:
    with pytest.raises(error) as caught:
        load_medgemma(folder)
    assert caught.type is error
    message = str(caught.value)
    assert "\n" not in message
    for words in said:
        assert words in message


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def safetensors(header: object, data: bytes = bytes(16), length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_missing_key(folder: Path) -> None:
    rewrite(folder, lambda weights: weights.pop(Q_PROJ))
    refused(folder, MissingKeyError, str(folder), Q_PROJ)


def test_many_missing_keys_are_counted(folder: Path) -> None:
    def drop(weights: dict[str, Any]) -> None:
        for key in [key for key in weights if "mlp.down_proj" in key]:
            del weights[key]

    rewrite(folder, drop)
    refused(folder, MissingKeyError, "layers.0.mlp", "layers.2.mlp", "and 1 more")


def test_a_layer_too_few_in_the_configuration(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, UnusedKeyError, WEIGHTS, "language_model.model.layers.3.", "and 10 more")


def test_unused_key(folder: Path) -> None:
    rewrite(folder, lambda weights: weights.update({"vision_tower.probe": torch.zeros(3)}))
    refused(folder, UnusedKeyError, WEIGHTS, "vision_tower.probe")


def test_shape(folder: Path) -> None:
    rewrite(folder, lambda weights: weights.update({Q_PROJ: torch.zeros(64, 32)}))
    refused(folder, ShapeMismatchError, WEIGHTS, f"{Q_PROJ} is [64, 32], not [64, 64]")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float8_e4m3fn])
def test_quantised_weights(folder: Path, dtype: torch.dtype) -> None:
    rewrite(folder, lambda weights: weights.update({Q_PROJ: torch.zeros(64, 64).to(dtype)}))
    refused(folder, CheckpointError, WEIGHTS, Q_PROJ, "F32, BF16, F16")


def test_a_model_of_another_family(tmp_path: Path) -> None:
    save_medsiglip(MedSiglip(tiny_medsiglip()), tmp_path)
    refused(tmp_path, CheckpointError, "model_type is 'siglip', not gemma3")
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(CorruptFileError, match=r"no model\.safetensors"):
        load_medsiglip(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_truncated(folder: Path, kept: int) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:kept])
    refused(folder, CorruptFileError, str(folder / WEIGHTS), "truncated" if kept else "empty")


def test_truncated_shard(shards: Path) -> None:
    shard = sorted(shards.glob("model-*"))[1]
    shard.write_bytes(shard.read_bytes()[:-4])
    refused(shards, CorruptFileError, str(shard), "truncated")


BROKEN_HEADERS: dict[str, bytes] = {
    "longer than the file": safetensors({"a": entry("F32", [4], 0, 16)}, length=10_000),
    "longer than any memory": safetensors({"a": entry("F32", [4], 0, 16)}, length=2**62),
    "not JSON": safetensors(b'{"a": ['),
    "not UTF-8": safetensors(b"\xff\xfe\xfd"),
    "not an object": safetensors(b"[1, 2]"),
    "unknown type": safetensors({"a": entry("Q7", [4], 0, 16)}),
    "offset past the end": safetensors({"a": entry("F32", [8], 0, 32)}),
    "offset behind the start": safetensors({"a": entry("F32", [4], -16, 0)}),
    "offsets the wrong way round": safetensors({"a": entry("F32", [4], 16, 0)}),
    "overlap": safetensors({"a": entry("F32", [3], 0, 12), "b": entry("F32", [2], 8, 16)}),
    "hole": safetensors({"a": entry("F32", [1], 0, 4), "b": entry("F32", [2], 8, 16)}),
    "left over": safetensors({"a": entry("F32", [2], 0, 8)}),
    "shape that overflows": safetensors({"a": entry("F32", [2**40, 2**40], 0, 16)}),
    "shape of another size": safetensors({"a": entry("F32", [3], 0, 16)}),
    "no shape": safetensors({"a": {"dtype": "F32", "data_offsets": [0, 16]}}),
}


@pytest.mark.parametrize("raw", BROKEN_HEADERS.values(), ids=BROKEN_HEADERS.keys())
def test_broken_header(folder: Path, raw: bytes) -> None:
    (folder / WEIGHTS).write_bytes(raw)
    refused(folder, CorruptFileError, str(folder / WEIGHTS), "truncated or corrupted")


def test_every_flipped_byte_of_a_header_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Whatever a broken header says, the answer is an error of ours and never a crash."""
    whole = safetensors({"a": entry("F32", [2, 2], 0, 16)})
    for place in range(len(whole) - 16):
        for bit in (1, 64, 128):
            broken = bytearray(whole)
            broken[place] ^= bit
            (tmp_path / WEIGHTS).write_bytes(broken)
            try:
                stored = open_weights(tmp_path)
            except CorruptFileError:
                continue
            for tensor in stored.values():
                tensor.read()


def test_pickles(folder: Path) -> None:
    torch.save({"a": torch.zeros(3)}, folder / WEIGHTS)
    assert zipfile.is_zipfile(folder / WEIGHTS)
    refused(folder, CorruptFileError, str(folder / WEIGHTS), "pickle")
    (folder / WEIGHTS).write_bytes(pickle.dumps({"a": 1}))
    refused(folder, CorruptFileError, str(folder / WEIGHTS), "pickle")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    refused(folder, CorruptFileError, str(folder / "pytorch_model.bin"), "pickle", WEIGHTS)


def test_git_lfs_pointer(folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(folder, CorruptFileError, str(folder / WEIGHTS), "not downloaded")


def test_no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    refused(folder, CorruptFileError, str(folder), WEIGHTS, INDEX)
    (folder / WEIGHTS).mkdir()
    refused(folder, CorruptFileError, str(folder / WEIGHTS), "cannot be read")


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", CorruptFileError, str(tmp_path / "nowhere"), "config.json")


def test_missing_shard(shards: Path) -> None:
    shard = sorted(shards.glob("model-*"))[2]
    shard.unlink()
    refused(shards, MissingKeyError, str(shard), "not there")


def test_key_in_two_shards(shards: Path) -> None:
    first, second = sorted(shards.glob("model-*"))[:2]
    weights = load_file(second)
    key, tensor = next(iter(load_file(first).items()))
    save_file(weights | {key: tensor}, second)
    refused(shards, CorruptFileError, str(second), key, first.name)


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": ["b"]}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": 3, "b": "c"}}',
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": ""}}',
        '{"weight_map": {"a": ".."}}',
        '{"weight_map": {"a": "config.json"}}',
    ],
)
def test_broken_index(shards: Path, index: str) -> None:
    (shards / INDEX).write_text(index)
    refused(shards, CorruptFileError, str(shards / INDEX))
