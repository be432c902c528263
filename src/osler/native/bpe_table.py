"""The tables of a tokenizer, `tokenizer.osler`: made of `tokenizer.json` once, then mapped.

A vocabulary of 262 k pieces takes a second to parse and milliseconds to map. The file says which
`tokenizer.json` it was made of, by checksum; where that has changed, it counts for nothing.

    0    magic, 8 bytes
    8    bytes of the header, uint64
    16   the header: JSON, with the place of each table and their checksum
    ...  the tables, each on a 64-byte boundary

Shapes: N pieces, M merges, H slots of the hash table, C characters, A added pieces, B bytes.
"""

import json
import mmap
import os
import re
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osler.native.checksum import Checksum

TABLE_FILE = "tokenizer.osler"
SOURCE_FILE = "tokenizer.json"

_MAGIC = b"\x89OSLTK1\n"
_START = struct.Struct("<8sQ")
_ALIGN = 64
_EMPTY = 0xFFFFFFFF

_TYPES = {
    "piece_at": "<u4",  # (N + 1,), where each piece lies in `piece_text`
    "piece_text": "u1",
    "by_text": "<i4",  # (N,), ids in the order of the pieces' bytes
    "code": "<u4",  # (C,), characters that are pieces, ascending
    "code_id": "<i4",  # (C,)
    "byte_id": "<i4",  # (256,)
    "merge": "<u4",  # (H, 4): left, right, rank, what they make
    "added_at": "<u4",  # (A + 1,)
    "added_text": "u1",  # in the order of their bytes
    "added_id": "<i4",  # (A,)
    "special_id": "<i4",  # control pieces, which a decoder leaves out
}
Tables = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Parts:
    """What a `tokenizer.json` of Gemma's kind consists of."""

    pieces: list[str]  # by id
    vocab: dict[str, int]
    merges: list[Any]
    added: list[tuple[str, int]]
    special: list[int]


def make_tables(source: bytes) -> dict[str, NDArray[Any]] | None:
    """Make the tables of a `tokenizer.json`.

    Args:
        source: the file.

    Returns:
        Arrays as at the top of this file; None for a tokenizer of another kind than Gemma's.
    """
    try:
        parts = _parts(json.loads(source))
        return None if parts is None else _tables(parts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # whoever reads the file itself says what is wrong with it


def write_tables(folder: Path) -> bool:
    """Put a folder's tables beside its `tokenizer.json`.

    Returns:
        Whether there are such tables now; not for a tokenizer of another kind than Gemma's.

    Raises:
        OSError: a file that cannot be read or written.
    """
    source = (folder / SOURCE_FILE).read_bytes()
    tables = make_tables(source)
    if tables is None:
        return False
    header: dict[str, Any] = {"source": _checksum(np.frombuffer(source, np.uint8)), "tables": {}}
    data = bytearray()
    for name, table in tables.items():
        header["tables"][name] = [len(data), list(table.shape)]
        data += table.tobytes()
        data += bytes(-len(data) % _ALIGN)
    header["data"] = _checksum(np.frombuffer(data, np.uint8))
    text = json.dumps(header).encode()
    text += b" " * (-(_START.size + len(text)) % _ALIGN)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".tokenizer-")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_START.pack(_MAGIC, len(text)) + text + data)
        part.chmod((folder / SOURCE_FILE).stat().st_mode & 0o666)  # mkstemp's are for one user
        part.replace(folder / TABLE_FILE)
    finally:
        part.unlink(missing_ok=True)
    return True


def read_tables(folder: Path) -> Tables | None:
    """Map a folder's tables.

    Returns:
        The arrays, to be read only; None where there are none, or they are damaged or were made of
        another `tokenizer.json`.
    """
    try:
        source, data = _mapped(folder / SOURCE_FILE), _mapped(folder / TABLE_FILE)
        magic, header_bytes = _START.unpack_from(data.data)
        start = _START.size + header_bytes
        header = json.loads(data[_START.size : start].tobytes())
        if (magic, header["source"]) != (_MAGIC, _checksum(source)):
            return None
        if header["data"] != _checksum(data[start:]):
            return None
        tables = {}
        for name, (offset, shape) in header["tables"].items():
            kind = np.dtype(_TYPES[name])
            size = int(np.prod(shape)) * kind.itemsize
            tables[name] = data[start + offset :][:size].view(kind).reshape(shape)
    except (OSError, ValueError, KeyError, TypeError, struct.error, RecursionError):
        return None
    return tables if tables.keys() == _TYPES.keys() else None


def _mapped(path: Path) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _checksum(data: NDArray[np.uint8]) -> str:
    return Checksum().update(data).hexdigest()


def _texts(texts: list[bytes]) -> tuple[list[int], NDArray[np.uint8]]:
    return [0, *accumulate(map(len, texts))], np.frombuffer(b"".join(texts), np.uint8)


def _tables(parts: _Parts) -> dict[str, NDArray[Any]]:
    piece_at, piece_text = _texts([piece.encode() for piece in parts.pieces])
    added = sorted((text.encode(), token_id) for text, token_id in parts.added)
    added_at, added_text = _texts([text for text, _ in added])
    codes = sorted((ord(piece), i) for piece, i in parts.vocab.items() if len(piece) == 1)
    tables = {
        "piece_at": piece_at,
        "piece_text": piece_text,
        "by_text": sorted(range(len(parts.pieces)), key=lambda i: parts.pieces[i].encode()),
        "code": [code for code, _ in codes],
        "code_id": [token_id for _, token_id in codes],
        "byte_id": [parts.vocab[f"<0x{byte:02X}>"] for byte in range(256)],
        "merge": _merge_slots(parts),
        "added_at": added_at,
        "added_text": added_text,
        "added_id": [token_id for _, token_id in added],
        "special_id": parts.special,
    }
    return {name: np.asarray(values, _TYPES[name]) for name, values in tables.items()}


def _parts(values: Mapping[str, Any]) -> _Parts | None:
    """The parts, if the file asks for nothing that the tables cannot do."""
    model, added = values["model"], values["added_tokens"]
    bpe = {"type": "BPE", "byte_fallback": True}
    plain = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    space, underline = {"String": " "}, "▁"
    replace = {"type": "Replace", "pattern": space, "content": underline}
    steps = [
        {"type": "Replace", "pattern": {"String": underline}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    # No space is left where this splits.
    split = {"type": "Split", "pattern": space, "behavior": "MergedWithPrevious", "invert": False}
    marks = ("single_word", "lstrip", "rstrip", "normalized")
    fits = (
        {key: model.get(key) for key in bpe} == bpe
        and not any(model.get(key) for key in plain)
        and values["normalizer"] == replace
        and values["pre_tokenizer"] in (None, split)
        and values["decoder"] == {"type": "Sequence", "decoders": steps}
        and not any(token[mark] for token in added for mark in marks)
        and all(token["content"] for token in added)
    )
    vocab: dict[str, int] = model["vocab"]
    contents = [(str(token["content"]), int(token["id"])) for token in added]
    ids = {token_id: piece for piece, token_id in vocab.items()} | {i: c for c, i in contents}
    pieces = [ids.get(token_id) for token_id in range(len(ids))]
    known = [piece for piece in pieces if piece is not None]
    spelt = {f"<0x{byte:02X}>" for byte in range(256)}
    odd = re.compile("<0x..>", re.DOTALL)  # what a decoder might take for a byte
    if (
        not fits
        or len(known) < len(ids)
        or len(set(known)) < len(known)
        or any(known[token_id] != piece for piece, token_id in vocab.items())
        or not spelt <= vocab.keys()
        or any(odd.fullmatch(piece) and piece not in spelt for piece in known)
    ):
        return None
    special = [int(token["id"]) for token in added if token["special"]]
    return _Parts(known, vocab, model["merges"], contents, special)


def _merge_slots(parts: _Parts) -> NDArray[np.uint32]:
    """The hash table of csrc/bpe.c, at most half full."""
    pairs = [m.split(" ") if isinstance(m, str) else m for m in parts.merges]
    vocab = parts.vocab
    # Of a pair that is there twice, the last counts.
    found = {
        (vocab[left], vocab[right]): (rank, vocab[left + right])
        for rank, (left, right) in enumerate(pairs)
    }
    rows_M4 = np.array([(*pair, *made) for pair, made in found.items()], np.uint32).reshape(-1, 4)
    size = 1 << max(1, (2 * len(rows_M4)).bit_length())
    slots_H4 = np.full((size, 4), _EMPTY, np.uint32)
    place_M = rows_M4[:, 0] * np.uint32(0x9E3779B1) ^ rows_M4[:, 1] * np.uint32(0x85EBCA77)
    place_M = (place_M ^ place_M >> np.uint32(15)) & np.uint32(size - 1)
    while len(rows_M4):
        _, first = np.unique(place_M, return_index=True)
        first = first[slots_H4[place_M[first], 0] == _EMPTY]
        slots_H4[place_M[first]] = rows_M4[first]
        waiting = np.ones(len(rows_M4), bool)
        waiting[first] = False
        rows_M4, place_M = rows_M4[waiting], (place_M[waiting] + 1) & np.uint32(size - 1)
    return slots_H4
