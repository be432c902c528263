"""A teacher's opinions on disk: the likeliest tokens in every place to be learnt, and their scores.

A store is a folder: `store.json`, which says what it is, and `shard-00000.safetensors` and so on
with ids as uint32 and scores as bfloat16, 6 bytes for each token kept, and the images' files. It is
written beside its place and moved there when it is complete. A shard's length and checksum are
compared before anything of it is used; it is mapped, so that reading a sequence reads no more.

Shapes: L positions, T of them learnt, K tokens kept at each.
"""

import bisect
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from osler.errors import InputError, UnreadableFileError
from osler.native.checksum import Checksum

_INDEX = "store.json"
_SHARD_TOKENS = 1 << 16
_PIECE_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True, eq=False)
class TaughtSequence:
    """A sequence with a teacher's opinion of those of its tokens that are to be learnt.

    Attributes:
        ids_L: int64 token ids, prompt and answer.
        learn_L: bool, T of them true and not the first; only these are predicted.
        top_ids_TK: int64, tokens that the teacher finds likely in the place of each of these.
        top_logits_TK: their scores, up to a constant a position; minus infinity for none.
        image: the file of its image, whose tokens stand in `ids_L`; empty for text only.
    """

    ids_L: Tensor
    learn_L: Tensor
    top_ids_TK: Tensor
    top_logits_TK: Tensor
    image: bytes = b""

    def __post_init__(self) -> None:
        if (
            self.learn_L.shape != self.ids_L.shape
            or bool(self.learn_L[:1].any())
            or self.top_ids_TK.shape != self.top_logits_TK.shape
            or len(self.top_ids_TK) != int(self.learn_L.sum())
        ):
            raise ValueError("opinions that do not fit the tokens to be learnt")


class ShardRecord(BaseModel):
    """One file of a store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    bytes: int
    checksum: str
    sequences: int
    tokens: int


class StoreRecord(BaseModel):
    """What a store says of itself.

    Attributes:
        teacher: who was asked.
        tokenizer_sha256: of the tokenizer whose ids these are.
        kept: tokens at each position, K.
        drawn: whether they were drawn by their probability; else they are the likeliest.
        shards: its files, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: str
    tokenizer_sha256: str
    kept: int
    drawn: bool
    shards: tuple[ShardRecord, ...] = ()

    @property
    def tokens(self) -> int:
        """Learnt tokens in all."""
        return sum(shard.tokens for shard in self.shards)


def write_store(
    folder: Path,
    sequences: Iterable[TaughtSequence],
    about: StoreRecord,
    *,
    shard_tokens: int = _SHARD_TOKENS,
) -> StoreRecord:
    """Write a store whole or not at all.

    Args:
        folder: where; nothing may be there.
        sequences: each with `about.kept` tokens a position or fewer.
        about: what it is, without its shards.
        shard_tokens: learnt tokens from which on a new shard begins.

    Returns:
        What it is, with its shards.

    Raises:
        InputError: there is something at `folder`, or there are no sequences.
    """
    if folder.exists():
        raise InputError(f"{folder}: exists already; choose another place for the store")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".store-") as name:
        staging = Path(name) / folder.name
        staging.mkdir()
        shards = tuple(
            _write_shard(staging / f"shard-{number:05}.safetensors", part, about.kept)
            for number, part in enumerate(_parts(sequences, shard_tokens))
        )
        if not shards:
            raise InputError(f"{folder}: no sequences to store")
        record = about.model_copy(update={"shards": shards})
        (staging / _INDEX).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        staging.replace(folder)
    return record


class TeacherStore(Sequence[TaughtSequence]):
    """A store to read sequences from, in any order.

    Attributes:
        record: what it is.

    Raises:
        UnreadableFileError: its record is damaged, or a shard is not there, was cut, or (when
            first used) is not what was written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / _INDEX
        try:
            self.record = StoreRecord.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UnreadableFileError(f"{folder}: not a store ({_INDEX} cannot be read)") from error
        except ValidationError as error:
            raise UnreadableFileError(f"{path}: not the record of a store") from error
        for shard in self.record.shards:
            found = self._path(shard)
            if not found.is_file() or found.stat().st_size != shard.bytes:
                raise UnreadableFileError(f"{found}: not there, or not {shard.bytes} bytes long")
        self._starts = [0, *accumulate(shard.sequences for shard in self.record.shards)]
        self._open: dict[int, _Shard] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> TaughtSequence: ...
    @overload
    def __getitem__(self, index: slice) -> "list[TaughtSequence]": ...
    def __getitem__(self, index: int | slice) -> "TaughtSequence | list[TaughtSequence]":
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"{index}: the store has {len(self)} sequences")
        number = bisect.bisect_right(self._starts, place) - 1
        if number not in self._open:
            shard = self.record.shards[number]
            self._open[number] = _Shard(self._path(shard), shard)
        return self._open[number].read(place - self._starts[number])

    def _path(self, shard: ShardRecord) -> Path:
        # A record names neighbours; anything else could point the reader out of the folder.
        return self._folder / Path(shard.file).name


class _Shard:
    """One file, compared with its checksum and mapped."""

    def __init__(self, path: Path, record: ShardRecord) -> None:
        if _checksum(path) != record.checksum:
            raise UnreadableFileError(f"{path}: not what was written (its checksum differs)")
        try:
            # Its methods have no types.
            file: Any = safe_open(path, framework="pt")
            self._columns = {
                name: file.get_slice(name)
                for name in ("ids", "learn", "top_ids", "top_logits", "images")
            }
            sizes_S3 = file.get_tensor("sizes")
        except SafetensorError as error:
            raise UnreadableFileError(f"{path}: not a shard of a store ({error})") from error
        self._ends = [[0, 0, 0], *sizes_S3.cumsum(dim=0).tolist()]

    def read(self, index: int) -> TaughtSequence:
        positions, learnt, image = (
            slice(*ends) for ends in zip(*self._ends[index : index + 2], strict=True)
        )
        return TaughtSequence(
            ids_L=self._columns["ids"][positions].to(torch.int64),
            learn_L=self._columns["learn"][positions],
            top_ids_TK=self._columns["top_ids"][learnt].to(torch.int64),
            top_logits_TK=self._columns["top_logits"][learnt],
            image=self._columns["images"][image].numpy().tobytes(),
        )


def _parts(
    sequences: Iterable[TaughtSequence], shard_tokens: int
) -> Iterator[list[TaughtSequence]]:
    part: list[TaughtSequence] = []
    tokens = 0
    for sequence in sequences:
        part.append(sequence)
        tokens += len(sequence.top_ids_TK)
        if tokens >= shard_tokens:
            yield part
            part, tokens = [], 0
    if part:
        yield part


def _write_shard(path: Path, part: Sequence[TaughtSequence], kept: int) -> ShardRecord:
    tops = [(_filled(one.top_ids_TK, kept, 0), one.top_logits_TK) for one in part]
    sizes = [(len(one.ids_L), len(one.top_ids_TK), len(one.image)) for one in part]
    images = np.frombuffer(b"".join(one.image for one in part), dtype=np.uint8)
    save_file(
        {
            "ids": torch.cat([one.ids_L for one in part]).to(torch.uint32),
            "learn": torch.cat([one.learn_L for one in part]),
            "sizes": torch.tensor(sizes),
            "top_ids": torch.cat([ids for ids, _ in tops]).to(torch.uint32),
            "top_logits": torch.cat(
                [_filled(logits.bfloat16(), kept, -torch.inf) for _, logits in tops]
            ),
            "images": torch.from_numpy(images.copy()),
        },
        path,
    )
    return ShardRecord(
        file=path.name,
        bytes=path.stat().st_size,
        checksum=_checksum(path),
        sequences=len(part),
        tokens=sum(len(ids) for ids, _ in tops),
    )


def _filled(values_TK: Tensor, kept: int, value: float) -> Tensor:
    """Fill rows up to `kept` places."""
    missing = kept - values_TK.shape[1]
    if missing < 0:
        raise InputError(f"{values_TK.shape[1]} tokens a position for a store of {kept}")
    return torch.nn.functional.pad(values_TK, (0, missing), value=value)


def _checksum(path: Path) -> str:
    checksum = Checksum()
    data = np.memmap(path, np.uint8, mode="r")
    for start in range(0, len(data), _PIECE_BYTES):
        checksum.update(data[start : start + _PIECE_BYTES])
    return checksum.hexdigest()
