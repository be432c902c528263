"""Batches out of a stream: the same global batch on any number of ranks, each with its share.

The order of a stream, and what is random about a row, do not depend on ranks; so one state serves
all, and a run may go on with more or fewer of them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from osler.errors import UnreadableFileError
from osler.training.distributed import Ranks
from osler.training.loop import Batches
from osler.training.streams.mixture import Drawn, Mixture

# Rows one after another that give nothing to learn: then there is something else in them.
_IN_VAIN = 100_000

Sample = TypeVar("Sample")
Batch = TypeVar("Batch")


class SampleBatches(Generic[Sample, Batch]):
    """Batches of one sample a row; a rank reads its own rows only.

    Args:
        mixture: rows.
        make: a row to a sample, a pure function.
        collate: samples of this rank to its batch.
        batch_size: samples over all ranks.
        ranks: who shares them.
    """

    def __init__(
        self,
        mixture: Mixture,
        make: Callable[[Drawn], Sample],
        collate: Callable[[Sequence[Sample]], Batch],
        batch_size: int,
        ranks: Ranks,
    ) -> None:
        self._mixture, self._make, self._collate = mixture, make, collate
        self._batch_size, self._mine = batch_size, ranks.share(batch_size)

    def __next__(self) -> Batch:
        drawn = [next(self._mixture) for _ in range(self._batch_size)]
        return self._collate([self._make(d) for d in drawn[self._mine]])

    def state_dict(self) -> dict[str, Any]:
        """The mixture's."""
        return self._mixture.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The mixture's."""
        self._mixture.load_state_dict(state)


class PackedBatches(Generic[Batch]):
    """Token sequences laid end to end and cut into full rows.

    Where a row of the batch begins depends on all sequences before it, so every rank reads them
    all and keeps its rows.

    Args:
        mixture: rows.
        make: a row to any number of sequences: ids, and for each whether it is to be learnt.
        collate: rows of ids and rows of learnt marks of this rank to its batch.
        batch_size: rows over all ranks.
        length: tokens a row.
        ranks: who shares them.
    """

    def __init__(
        self,
        mixture: Mixture,
        make: Callable[[Drawn], Sequence[tuple[list[int], list[bool]]]],
        collate: Callable[[list[list[int]], list[list[bool]]], Batch],
        *,
        batch_size: int,
        length: int,
        ranks: Ranks,
    ) -> None:
        self._mixture, self._make, self._collate = mixture, make, collate
        self._batch_size, self._length = batch_size, length
        self._mine = ranks.share(batch_size)
        self._ids: list[int] = []
        self._learn: list[bool] = []

    def __next__(self) -> Batch:
        size = self._batch_size * self._length
        in_vain = 0
        while len(self._ids) < size:
            before, drawn = len(self._ids), next(self._mixture)
            for ids, learn in self._make(drawn):
                self._ids += ids
                self._learn += learn
            in_vain = in_vain + 1 if len(self._ids) == before else 0
            if in_vain > _IN_VAIN:
                raise UnreadableFileError(f"{drawn.read().where}: {_IN_VAIN} rows without a text")
        starts = range(0, size, self._length)[self._mine]
        batch = self._collate(
            [self._ids[start : start + self._length] for start in starts],
            [self._learn[start : start + self._length] for start in starts],
        )
        self._ids, self._learn = self._ids[size:], self._learn[size:]
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The mixture's, and what was begun but has not gone into a row."""
        return {
            "mixture": self._mixture.state_dict(),
            "ids": list(self._ids),
            "learn": list(self._learn),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._mixture.load_state_dict(state["mixture"])
        self._ids, self._learn = list(state["ids"]), list(state["learn"])


class Ahead(Generic[Batch]):
    """Makes the next batch in a thread while the model is busy with the last.

    Its state is that of the batch which was handed out, not of the one that waits.

    Args:
        batches: what makes them, from nothing that training changes.
    """

    def __init__(self, batches: Batches[Batch]) -> None:
        self._batches = batches
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._coming: Future[tuple[Batch, dict[str, Any]]] | None = None
        self._state = batches.state_dict()

    def __next__(self) -> Batch:
        coming = self._coming or self._thread.submit(self._make)
        batch, self._state = coming.result()
        self._coming = self._thread.submit(self._make)
        return batch

    def _make(self) -> tuple[Batch, dict[str, Any]]:
        return next(self._batches), self._batches.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Where the batch after the last one begins."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, and forget what waits."""
        if self._coming is not None:
            self._coming.exception()  # wait for it; whatever became of it is not wanted
        self._batches.load_state_dict(state)
        self._state, self._coming = state, None
