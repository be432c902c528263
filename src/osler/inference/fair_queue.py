"""Requests that wait for a place: first come, first served within a tenant, tenants in turn."""

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence as Sequences

from osler.errors import QueueFullError
from osler.inference.continuation import FinishReason
from osler.inference.limits import Limits
from osler.inference.sequence import Sequence


class FairQueue:
    """May be filled by any thread while one other empties it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        # The tenant whose turn it is stands first; tenants without requests are not here.
        self._tenants: OrderedDict[str, deque[Sequence]] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._tenants.values()))

    def put(self, sequences: Sequences[Sequence]) -> None:
        """Add to the end, all or none.

        Raises:
            QueueFullError: there is no room for all of them.
        """
        with self._lock:
            waiting = [s for queue in self._tenants.values() for s in queue] + list(sequences)
            if len(waiting) > self._limits.max_waiting:
                raise QueueFullError(
                    f"{len(waiting) - len(sequences)} requests are waiting, and no more than"
                    f" {self._limits.max_waiting} may; try again later"
                )
            waiting_bytes = sum(sequence.waiting_bytes for sequence in waiting)
            if waiting_bytes > self._limits.waiting_bytes:
                raise QueueFullError(
                    f"the images of waiting requests would take {waiting_bytes} bytes, and no more"
                    f" than {self._limits.waiting_bytes} may wait; try again later"
                )
            for sequence in sequences:
                self._tenants.setdefault(sequence.tenant, deque()).append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Add one that had its turn and lost its place: it is next."""
        with self._lock:
            self._tenants.setdefault(sequence.tenant, deque()).appendleft(sequence)
            self._tenants.move_to_end(sequence.tenant, last=False)

    def first(self) -> Sequence | None:
        """Whose turn it is; None where none waits."""
        with self._lock:
            return next((queue[0] for queue in self._tenants.values()), None)

    def take(self) -> None:
        """Remove the first; the next turn is another tenant's."""
        with self._lock:
            tenant, queue = self._tenants.popitem(last=False)
            queue.popleft()
            if queue:
                self._tenants[tenant] = queue

    def sweep(self) -> list[tuple[Sequence, FinishReason]]:
        """Remove those that were called off or are late, and say why."""
        with self._lock:
            swept = []
            for tenant, queue in list(self._tenants.items()):
                kept = deque[Sequence]()
                for sequence in queue:
                    if reason := sequence.reason_to_end():
                        swept.append((sequence, reason))
                    else:
                        kept.append(sequence)
                if kept:
                    self._tenants[tenant] = kept
                else:
                    del self._tenants[tenant]
            return swept

    def waiting(self) -> list[Sequence]:
        """All of them."""
        with self._lock:
            return [sequence for queue in self._tenants.values() for sequence in queue]

    def take_all(self) -> list[Sequence]:
        """Remove all."""
        taken = self.waiting()
        with self._lock:
            self._tenants.clear()
        return taken
