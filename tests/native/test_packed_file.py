"""The container of packed weights: what goes in comes out, and nothing broken is ever read."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osler.errors import CheckpointError, CorruptFileError
from osler.native.checksum import Checksum
from osler.native.formats import FORMATS, GROUPS, Matrix, has_row_scale, packed_bytes, padded_rows
from osler.native.library import library
from osler.native.packed_file import PackedFile, write_packed

START = struct.Struct("<8sIIQQ")


def random_matrix(format: str, rows: int, cols: int, seed: int = 0) -> Matrix:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, packed_bytes(format, rows, cols), dtype=np.uint8)
    scale = None
    if has_row_scale(format):
        scale = rng.random(padded_rows(rows), dtype=np.float32)
    return Matrix(
        format=format, rows=rows, cols=cols, group=GROUPS[format], data=data, row_scale=scale
    )


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "model.osler"
    with write_packed(path, {"family": "medgemma"}) as writer:
        for format in FORMATS:
            matrix = random_matrix(format, 33, 300)
            writer.matrix(f"layer.{format}", format, 33, 300, GROUPS[format], [matrix])
        writer.values("norm", np.arange(7, dtype=np.float32))
        writer.values("positions", np.arange(6, dtype=np.float32).reshape(2, 3))
    return path


def test_what_goes_in_comes_out(packed: Path) -> None:
    file = PackedFile(packed)
    file.verify()
    assert file.about == {"family": "medgemma"}
    for format in FORMATS:
        wanted, found = random_matrix(format, 33, 300), file.matrix(f"layer.{format}")
        assert (found.format, found.rows, found.cols) == (format, 33, 300)
        assert found.group == GROUPS[format]
        assert np.array_equal(found.data, wanted.data)
        assert found.data.ctypes.data % 64 == 0
        assert (found.row_scale is None) == (wanted.row_scale is None)
        if found.row_scale is not None and wanted.row_scale is not None:
            assert np.array_equal(found.row_scale, wanted.row_scale)
            assert found.row_scale.ctypes.data % 64 == 0
    assert file.values("norm").tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert file.values("positions").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_matrix_in_slices_is_the_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / "whole", tmp_path / "slices"]
    slices = [random_matrix("int4", 32, 256, 0), random_matrix("int4", 5, 256, 1)]
    whole = Matrix(
        format="int4",
        rows=37,
        cols=256,
        group=256,
        data=np.concatenate([part.data for part in slices]),
        row_scale=np.concatenate([part.row_scale for part in slices]),
    )
    for path, parts in zip(paths, ([whole], slices), strict=True):
        with write_packed(path, {}) as writer:
            writer.matrix("w", "int4", 37, 256, 256, parts)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_mapped_weights_cannot_be_written(packed: Path) -> None:
    data = PackedFile(packed).matrix("layer.int4").data
    with pytest.raises(ValueError, match="read-only"):
        data[0] = 0


def test_weights_outlive_their_file_object(packed: Path) -> None:
    norm = PackedFile(packed).values("norm")
    assert norm[6] == 6


def test_what_the_file_does_not_hold(packed: Path) -> None:
    file = PackedFile(packed)
    for call, name, reason in (
        (file.matrix, "other", "holds no other"),
        (file.values, "other", "holds no other"),
        (file.matrix, "norm", "norm is not a packed matrix"),
        (file.values, "layer.int8", "layer.int8 is a packed matrix"),
    ):
        with pytest.raises(CheckpointError, match=f"model.osler: {reason}"):
            call(name)


def test_every_truncation_is_noticed(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    part = tmp_path / "part"
    lengths = {0, 1, 7, 8, 31, 63, 64, 65, len(whole) - 1, *range(0, len(whole), 997)}
    for length in sorted(lengths):
        part.write_bytes(whole[:length])
        with pytest.raises(CorruptFileError, match=r"part: (truncated|empty)"):
            PackedFile(part)
    part.write_bytes(whole + b"\0")
    with pytest.raises(CorruptFileError, match="follows its end"):
        PackedFile(part)


def test_every_flipped_bit_is_noticed(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    entries = PackedFile(packed).entries.values()
    data = [range(entry.offset, entry.offset + entry.bytes) for entry in entries]
    part = tmp_path / "part"
    rng = np.random.default_rng(0)
    for place in [*range(64), *rng.integers(64, len(whole), 200).tolist(), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        part.write_bytes(damaged)
        header_end = START.unpack_from(whole)[3]
        if place < header_end and place >= 64 and not any(place in held for held in data):
            continue  # between two tensors, where nothing is read
        with pytest.raises(CheckpointError, match=r"part: "):
            PackedFile(part).verify()


def test_a_damaged_tensor_is_named(packed: Path) -> None:
    entry = PackedFile(packed).entries["layer.q4_0"]
    damaged = bytearray(packed.read_bytes())
    damaged[entry.offset + 5] ^= 1
    packed.write_bytes(damaged)
    with pytest.raises(CorruptFileError, match=r"model.osler: layer.q4_0 is damaged"):
        PackedFile(packed).verify()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"GGUF" + bytes(200), "not a file of packed weights"),
        (b"PK\x03\x04" + bytes(200), "not a file of packed weights"),
        (b"\x89OSLER\n" + bytes(200), "not a file of packed weights"),
        (START.pack(b"\x89OSLER\r\n", 2, 0, 64, 0) + bytes(64), "version 2 of the format"),
        (START.pack(b"\x89OSLER\r\n", 1, 0, 2**63, 2**63) + bytes(64), "truncated"),
        (START.pack(b"\x89OSLER\r\n", 1, 0, 0, 96) + bytes(64), "damaged"),
    ],
)
def test_foreign_and_newer_files(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.osler"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        PackedFile(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(CorruptFileError, match=str(path)):
            PackedFile(path)


def _rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the header and make its hash right again, as only malice would."""
    whole = path.read_bytes()
    magic, version, nothing, offset, _ = START.unpack_from(whole)
    header = json.dumps(change(json.loads(whole[offset:]))).encode()
    start = START.pack(magic, version, nothing, offset, len(header))
    digest = hashlib.sha256(start + header).digest()
    path.write_bytes(start + digest + whole[64:offset] + header)


def _set(index: int, **fields: object) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        content["tensors"][index] |= fields
        return content

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: [], "not one of packed weights"),
        (lambda content: {"tensors": []}, "not one of packed weights"),
        (lambda content: content | {"tensors": [{"name": "w"}]}, "not one of packed weights"),
        (lambda content: content | {"tensors": {"a": 1}}, "not one of packed weights"),
        (lambda content: content | {"about": []}, "does not say what the model is"),
        (_set(0, offset=True), "offset"),
        (_set(0, offset=64.0), "offset"),
        (_set(0, name=3), "name"),
        (_set(0, checksum=None), "checksum"),
        (_set(0, rows=0), "out of range"),
        (_set(0, cols=-4), "out of range"),
        (_set(0, rows=2**40), "out of range"),
        (_set(0, group=-1), "out of range"),
        (_set(0, format="int3"), "does not know"),
        (_set(0, bytes=64), "64 bytes, not"),
        (_set(0, offset=65), "outside"),
        (_set(0, offset=0), "outside"),
        (_set(0, offset=-64), "outside"),
        (_set(0, offset=2**62), "outside"),
        (_set(1, offset=64), "overlaps"),
        (_set(1, name="layer.bf16"), "same name"),
        (_set(2, name="other"), "lacks the scales"),
    ],
)
def test_hostile_headers(packed: Path, change: Callable[[Any], Any], reason: str) -> None:
    _rewrite(packed, change)
    with pytest.raises(CorruptFileError, match=reason) as caught:
        PackedFile(packed)
    assert "\n" not in str(caught.value)


def test_an_interrupted_write_leaves_what_was_there(packed: Path) -> None:
    before = packed.read_bytes()

    def interrupted() -> None:
        with write_packed(packed, {}) as writer:
            writer.values("norm", np.ones(3, np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert packed.read_bytes() == before
    assert list(packed.parent.iterdir()) == [packed]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match="cannot be written"),
        write_packed(tmp_path / "no" / "model.osler", {}),
    ):
        pass


def test_a_matrix_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="bytes of data"),
        write_packed(tmp_path / "model.osler", {}) as writer,
    ):
        writer.matrix("w", "bf16", 64, 64, 0, [random_matrix("bf16", 32, 64)])


def test_a_checksum_knows_order_and_length() -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 64 * 9000 + 5, dtype=np.uint8)
    digest = Checksum().update(data).hexdigest()
    in_pieces = Checksum()
    for start in range(0, len(data), 64 * 100):
        in_pieces.update(data[start : start + 64 * 100])
    assert in_pieces.hexdigest() == digest
    swapped = np.concatenate([data[64:128], data[:64], data[128:]])
    assert Checksum().update(swapped).hexdigest() != digest
    longer = np.concatenate([data, np.zeros(1, np.uint8)])
    assert Checksum().update(longer).hexdigest() != digest
    with pytest.raises(ValueError, match="whole lines"):
        Checksum().update(data).update(data)


def test_the_checksum_of_the_library_is_that_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    if library() is None:
        pytest.skip("no native library")
    data = np.random.default_rng(0).integers(0, 256, 64 * 5000 + 3, dtype=np.uint8)
    native = Checksum().update(data).hexdigest()
    monkeypatch.setattr("osler.native.checksum.library", lambda: None)
    assert Checksum().update(data).hexdigest() == native
