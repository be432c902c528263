"""A tokenizer of Gemma's kind on mapped tables, encoding in C (csrc/bpe.c)."""

import ctypes
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from osler.native.bpe_table import SOURCE_FILE, Tables, read_tables, write_tables
from osler.native.library import Library

_MOST_BYTES = 1 << 29


class _BpeStruct(ctypes.Structure):
    """`osl_bpe` of csrc/bpe.c."""

    _fields_ = (
        ("chars", ctypes.c_int32),
        ("added", ctypes.c_int32),
        ("merge_mask", ctypes.c_uint32),
        ("code", ctypes.c_void_p),
        ("code_id", ctypes.c_void_p),
        ("byte_id", ctypes.c_void_p),
        ("merge", ctypes.c_void_p),
        ("added_at", ctypes.c_void_p),
        ("added_text", ctypes.c_void_p),
        ("added_id", ctypes.c_void_p),
    )


def open_bpe(folder: Path, library: Library) -> "Bpe | None":
    """The tokenizer of a folder; its tables are made where they are missing or out of date.

    Args:
        folder: with a `tokenizer.json`.
        library: the kernels.

    Returns:
        None where the tables cannot be made or written: another kind of tokenizer, or a folder
        that is not to be written to.
    """
    tables = read_tables(folder)
    if tables is None:
        try:
            write_tables(folder)
        except OSError:
            return None
        tables = read_tables(folder)
    return None if tables is None else Bpe(tables, library, folder / SOURCE_FILE)


class Bpe:
    """A tokenizer; gives the ids and texts that the `tokenizers` library gives.

    Attributes:
        size: number of ids.
        special: pieces that a decoder leaves out.
    """

    def __init__(self, tables: Tables, library: Library, source: Path) -> None:
        """Most callers want `open_bpe`.

        Args:
            tables: of `bpe_table`.
            library: the kernels.
            source: the `tokenizer.json` that they were made of.

        Raises:
            ValueError: tables that do not fit together.
        """
        self._source = source
        self._text = tables["piece_text"].tobytes()
        self._at = tables["piece_at"]
        self._by_text = tables["by_text"]
        self._byte_of = {int(token): byte for byte, token in enumerate(tables["byte_id"])}
        self.size = len(self._at) - 1
        self._special_ids = frozenset(tables["special_id"].tolist())
        self.special = frozenset(self._piece(token).decode() for token in self._special_ids)
        self._tables = tables  # the structure points into them
        self._struct = _struct(tables)
        address, number = ctypes.c_void_p, ctypes.c_int64
        self._encode = library.function(
            "osl_bpe_encode", number, address, address, number, ctypes.c_int32, address
        )

    def encode(self, text: str) -> list[int]:
        """Encode text; added pieces in it are found before all else."""
        return self._ids(text, literal=False)

    def spell(self, text: str) -> list[int]:
        """Encode text letter for letter."""
        return self._ids(text, literal=True)

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Decode; a run of bytes that is no UTF-8 becomes a U+FFFD each."""
        parts: list[str] = []
        run = bytearray()
        for token in ids:
            if not 0 <= token < self.size or (skip_special and token in self._special_ids):
                continue
            if (byte := self._byte_of.get(token)) is not None:
                run.append(byte)
                continue
            if run:
                parts.append(_text_of(run))
                run.clear()
            parts.append(self._piece(token).decode().replace("▁", " "))
        return "".join([*parts, _text_of(run)])

    def id_of(self, piece: str) -> int | None:
        """The id of a piece, if there is such."""
        wanted = piece.encode()
        place = bisect_left(self._by_text, wanted, key=self._piece)
        if place == self.size or self._piece(token := int(self._by_text[place])) != wanted:
            return None
        return token

    def to_json(self) -> str:
        """The `tokenizer.json`."""
        return self._source.read_text(encoding="utf-8")

    def _piece(self, token: int) -> bytes:
        return self._text[int(self._at[token]) : int(self._at[token + 1])]

    def _ids(self, text: str, *, literal: bool) -> list[int]:
        data = text.encode()
        if len(data) >= _MOST_BYTES:
            raise MemoryError("the text is too long to be encoded")
        ids = np.empty(3 * len(data), np.int32)
        count = self._encode(
            ctypes.byref(self._struct), data, len(data), int(literal), ids.ctypes.data
        )
        if count < 0:
            raise MemoryError("no memory to encode the text")
        found: list[int] = ids[:count].tolist()
        return found


def _text_of(run: bytearray) -> str:
    try:
        return run.decode()
    except UnicodeDecodeError:
        return "\N{REPLACEMENT CHARACTER}" * len(run)


def _struct(tables: Tables) -> _BpeStruct:
    """What C reads; every place that it goes to by a table's word is checked."""
    added_at, merge = tables["added_at"].astype(np.int64), tables["merge"]
    if (
        len(tables["code"]) != len(tables["code_id"])
        or len(tables["byte_id"]) != 256
        or len(added_at) != len(tables["added_id"]) + 1
        or added_at[0] != 0
        or added_at[-1] != len(tables["added_text"])
        or (np.diff(added_at) <= 0).any()
        or len(merge) & (len(merge) - 1)
        or not len(merge)
    ):
        raise ValueError("the tables do not fit together")
    names = ("code", "code_id", "byte_id", "merge", "added_at", "added_text", "added_id")
    addresses = (tables[name].ctypes.data for name in names)
    return _BpeStruct(len(tables["code"]), len(added_at) - 1, len(merge) - 1, *addresses)
