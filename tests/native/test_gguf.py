"""GGUF files: what the `gguf` package writes is read without loss, and broken files are refused."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from osler.errors import CheckpointError, CorruptFileError
from osler.models.config import MedGemmaConfig
from osler.models.medgemma import MedGemma
from osler.native.blocks import Blocks
from osler.native.gguf import GgufFile
from osler.native.gguf_model import GgufModel
from osler.testing.gguf import VISION_NAMES, write_text_gguf, write_vision_gguf
from osler.testing.models import randomise, tiny_medgemma

KINDS = ["Q4_0", "Q8_0", "BF16", "F16", "F32"]


def config() -> MedGemmaConfig:
    """A tiny model that llama.cpp could have: every sixth layer is global, scores by head size."""
    tiny = tiny_medgemma()
    text = replace(tiny.text_config, num_hidden_layers=2, layer_types=())
    return replace(tiny, text_config=text, image_token_id=262_144, boi_token_id=255_999)


@pytest.fixture(scope="module")
def model() -> MedGemma:
    made = MedGemma(config())
    randomise(made)
    return made


@pytest.fixture
def file(model: MedGemma, tmp_path: Path) -> Path:
    path = tmp_path / "text.gguf"
    write_text_gguf(model, path, "Q4_0")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_what_the_reference_reads(model: MedGemma, tmp_path: Path, kind: str) -> None:
    paths = tmp_path / "text.gguf", tmp_path / "vision.gguf"
    wanted = write_text_gguf(model, paths[0], kind) | write_vision_gguf(model, paths[1], kind)
    read = GgufModel(*paths)
    assert read.shapes.keys() == wanted.keys()
    for name, values in wanted.items():
        source = read.read(name)
        is_rms = values.ndim == 1 and ("language_model" in name or "soft_emb" in name)
        found = source.values_RC() if isinstance(source, Blocks) else source.float()
        np.testing.assert_array_equal(found.numpy(), values - 1 if is_rms else values)
    blocks = isinstance(read.read("language_model.layers.1.mlp.up_proj.weight"), Blocks)
    assert blocks == (kind in ("Q4_0", "Q8_0"))


def test_sizes_come_from_the_metadata(model: MedGemma, tmp_path: Path) -> None:
    paths = tmp_path / "text.gguf", tmp_path / "vision.gguf"
    write_text_gguf(model, paths[0], "F32")
    write_vision_gguf(model, paths[1], "F32")
    found, wanted = GgufModel(*paths).config, config()
    text = replace(found.text_config, rms_norm_eps=1e-6)
    assert found.text_config.rms_norm_eps == pytest.approx(1e-6)
    assert text == wanted.text_config
    assert found.vision_config is not None
    assert wanted.vision_config is not None
    assert replace(found.vision_config, layer_norm_eps=1e-6) == wanted.vision_config
    assert found.mm_tokens_per_image == wanted.mm_tokens_per_image
    assert (found.image_token_id, found.boi_token_id) == (262_144, 255_999)
    assert GgufModel(paths[0]).config.vision_config is None


def test_feed_forwards_under_the_older_names(model: MedGemma, tmp_path: Path) -> None:
    write_text_gguf(model, tmp_path / "text.gguf", "F32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VISION_NAMES, "mlp.fc1", "ffn_down")
        patch.setitem(VISION_NAMES, "mlp.fc2", "ffn_up")
        wanted = write_vision_gguf(model, tmp_path / "vision.gguf", "F32")
    read = GgufModel(tmp_path / "text.gguf", tmp_path / "vision.gguf")
    for part in ("fc1", "fc2"):
        name = f"vision_tower.encoder.layers.1.mlp.{part}.weight"
        source = read.read(name)
        assert isinstance(source, torch.Tensor)
        np.testing.assert_array_equal(source.numpy(), wanted[name])


def test_q6_k_is_what_the_reference_makes_of_it(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (3, 2 * 210), dtype=np.uint8)
    blocks.reshape(-1, 210)[:, 208:] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    found = Blocks(format="q6_k", cols=512, bytes_RB=torch.from_numpy(blocks)).values_RC()
    wanted = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q6_K)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_other_types_are_named(model: MedGemma, tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    write_text_gguf(model, path, "Q4_0", change=_with_q4_k)
    file = GgufFile(path)
    with pytest.raises(CheckpointError, match=r"text.gguf: extra is Q4_K; Osler reads F32"):
        file.source("extra")
    with pytest.raises(CheckpointError, match="holds no other"):
        file.source("other")


def _with_q4_k(writer: gguf.GGUFWriter) -> None:
    data = np.zeros((2, 144), np.uint8)
    writer.add_tensor("extra", data, raw_dtype=gguf.GGMLQuantizationType.Q4_K)


def _with_head(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("output.weight", np.zeros((128, 64), np.float32))


def _number(key: str, value: int) -> Callable[[gguf.GGUFWriter], None]:
    return lambda writer: writer.add_uint32(key, value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_with_head, "head of its own"),
        (_number("gemma3.attention.sliding_window_pattern", 0), "no size"),
        (lambda writer: writer.add_float32("gemma3.final_logit_softcapping", 30.0), "softcapping"),
        (lambda writer: writer.add_float32("gemma3.rope.freq_base_swa", -1.0), "not above 0"),
    ],
)
def test_models_that_osler_does_not_compute(
    model: MedGemma, tmp_path: Path, change: Callable[[gguf.GGUFWriter], None], reason: str
) -> None:
    write_text_gguf(model, tmp_path / "text.gguf", "F32", change=change)
    with pytest.raises(CheckpointError, match=reason):
        GgufModel(tmp_path / "text.gguf")


def _replaced(file: Path, key: str, value: int) -> None:
    """Overwrite the uint32 of a key."""
    data = bytearray(file.read_bytes())
    place = data.index(key.encode()) + len(key) + 4
    data[place : place + 4] = struct.pack("<I", value)
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("gemma3.block_count", 2**31, "no size"),
        ("gemma3.block_count", 2**20, "fewer tensors"),
        ("gemma3.block_count", 3, "holds no blk.2"),
        ("gemma3.embedding_length", 2**20, "not"),
        ("gemma3.embedding_length", 0, "no size"),
        ("gemma3.attention.head_count", 3, "multiple"),
        ("gemma3.feed_forward_length", 2**24, "not"),
        ("gemma3.attention.key_length", 15, "value_length"),
    ],
)
def test_sizes_that_do_not_fit_the_tensors(file: Path, key: str, value: int, reason: str) -> None:
    _replaced(file, key, value)
    with pytest.raises(CheckpointError, match=reason) as caught:
        GgufModel(file)
    assert "\n" not in str(caught.value)


def test_a_vision_tower_is_no_decoder_and_the_other_way_round(
    model: MedGemma, file: Path, tmp_path: Path
) -> None:
    write_vision_gguf(model, tmp_path / "vision.gguf", "F32")
    with pytest.raises(CheckpointError, match="architecture is 'clip', not 'gemma3'"):
        GgufModel(tmp_path / "vision.gguf")
    with pytest.raises(CheckpointError, match="architecture is 'gemma3', not 'clip'"):
        GgufModel(file, file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"GG", "truncated"),
        (b"PK\x03\x04" + bytes(99), "not GGUF"),
        (b"version https://git-lfs.github.com", "Git LFS pointer"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1 of GGUF"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62) + bytes(99), "a name of"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99) + bytes(9), "unknown type 99"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**60) + bytes(9),
            "truncated",
        ),
        (
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 6, 2**60) + bytes(9),
            "truncated",
        ),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "array of arrays"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 5) + bytes(99), "5 dimensions"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 2**60, 0, 0) + bytes(99),
            "beyond its end",
        ),
        (
            b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 1, 0, 2**63) + bytes(99),
            "beyond its end",
        ),
    ],
)
def test_foreign_and_hostile_files(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        GgufFile(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    part = file.with_name("part.gguf")
    for length in [*range(0, len(whole), 1499), len(whole) - 200]:
        part.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            GgufModel(part)


def test_flipped_bits_never_crash(file: Path) -> None:
    """They may go unnoticed, as the format has no checksums; only our errors may come."""
    whole = file.read_bytes()
    header = whole.index(b"output_norm")
    part = file.with_name("part.gguf")
    rng = np.random.default_rng(0)
    for place in rng.integers(0, header, 150).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        part.write_bytes(damaged)
        try:
            GgufModel(part)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017 - there may be none


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match=r"nothing\.gguf"):
        GgufFile(tmp_path / "nothing.gguf")
