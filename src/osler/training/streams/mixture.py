"""Rows of several sources in one order, by weight.

The order follows from the seed alone. In every beginning of the stream each source has its share
to within one row, so a small weight is served from the first steps on.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from osler.errors import InputError, UnreadableFileError
from osler.training.streams.shards import Row, Shard


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A row of the stream that has its place but is not read yet.

    Attributes:
        source: name of where it comes from.
        place: a name for its place in the stream, from which its randomness follows.
    """

    source: str
    place: str
    shard: Shard
    index: int

    def read(self) -> Row:
        """Read the row.

        Raises:
            UnreadableFileError: it is damaged; the message names file and line.
        """
        return self.shard[self.index]

    def rng(self) -> random.Random:
        """A generator for what is varied about this row, the same on whichever rank it falls."""
        return random.Random(self.place)


class Opens(Protocol):
    """What can be opened as a shard: a `ShardFile`, or something in memory."""

    def open(self) -> Shard: ...


class Mixture:
    """An endless stream over sources; its state says which row is next.

    Args:
        sources: shards by name. Each epoch takes them in a new order, and their rows too.
        weights: relative, by name; None gives each row of all the same chance, for which every
            shard's index is read once.
        seed: of all orders.

    Raises:
        InputError: weights that are not above 0, or are not of these sources.
        UnreadableFileError: a source without rows.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Opens]],
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        if weights is None:
            weights = row_counts(sources)
        if weights.keys() != sources.keys():
            unknown = sorted(weights.keys() ^ sources.keys())
            raise InputError(f"weights and sources do not match: {', '.join(unknown)}")
        if not sources or min(weights.values()) <= 0:
            raise InputError("every source needs a weight above 0")
        total = sum(weights.values())
        self.shares = {name: weights[name] / total for name in sorted(sources)}
        self._seed = seed
        self._streams = {
            name: _SourceStream(sources[name], f"{seed}/{name}") for name in self.shares
        }
        self._counts = dict.fromkeys(self.shares, 0)

    def __iter__(self) -> "Mixture":
        return self

    def __next__(self) -> Drawn:
        number = sum(self._counts.values())
        lag = {
            name: share * (number + 1) - self._counts[name] for name, share in self.shares.items()
        }
        source = max(lag, key=lag.__getitem__)
        self._counts[source] += 1
        shard, index = next(self._streams[source])
        return Drawn(
            source=source, place=f"{self._seed}/{source}/{number}", shard=shard, index=index
        )

    def state_dict(self) -> dict[str, Any]:
        """How many rows each source gave, and where it stands."""
        return {
            "counts": dict(self._counts),
            "streams": {name: stream.place for name, stream in self._streams.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            InputError: it is of other sources.
        """
        if state["counts"].keys() != self._counts.keys():
            raise InputError("the run was on other data; start it anew in another folder")
        self._counts = dict(state["counts"])
        for name, place in state["streams"].items():
            self._streams[name].go_to(*place)


def row_counts(sources: Mapping[str, Sequence[Opens]]) -> dict[str, float]:
    """The number of rows of each source, as weights that give every row the same chance.

    Raises:
        UnreadableFileError: a source without rows.
    """
    counts = {
        name: float(sum(len(file.open()) for file in shards)) for name, shards in sources.items()
    }
    for name, count in counts.items():
        if not count:
            raise UnreadableFileError(f"{sources[name][0]}: no rows")
    return counts


class _SourceStream:
    """One source, epoch after epoch: shards in a random order, the rows of each in another."""

    def __init__(self, shards: Sequence[Opens], seed: str) -> None:
        self._shards, self._seed = shards, seed
        self.go_to(0, 0, 0)

    def go_to(self, epoch: int, shard: int, row: int) -> None:
        self._epoch, self._turn, self._row = epoch, shard, row
        self._shard: Shard | None = None

    @property
    def place(self) -> tuple[int, int, int]:
        return self._epoch, self._turn, self._row

    def __next__(self) -> tuple[Shard, int]:
        without_rows = 0
        while True:
            if self._shard is None:
                self._open()
            assert self._shard is not None
            if self._row < len(self._order):
                self._row += 1
                return self._shard, self._order[self._row - 1]
            without_rows = without_rows + 1 if not self._order else 0
            if without_rows > len(self._shards):
                raise UnreadableFileError(f"{self._shards[0]}: no rows")
            self._shard, self._row = None, 0
            self._turn += 1
            if self._turn == len(self._shards):
                self._epoch, self._turn = self._epoch + 1, 0

    def _open(self) -> None:
        epoch = f"{self._seed}/{self._epoch}"
        turns = _shuffled(len(self._shards), epoch)
        self._shard = self._shards[turns[self._turn]].open()
        self._order = _shuffled(len(self._shard), f"{epoch}/{self._turn}")


def _shuffled(count: int, seed: str) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order
