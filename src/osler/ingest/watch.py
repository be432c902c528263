"""Limits of time, kept by one thread: starting one for each takes as long as a small file."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class _Limit(NamedTuple):
    moment_s: float
    expire: Callable[[], None]


class Watch:
    """Calls what is to be called when something takes too long, from any thread."""

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """In a forked process, which has the limits of its parent but not the thread: forget."""
        self._changed = threading.Condition()
        self._limits: set[_Limit] = set()
        self._thread: threading.Thread | None = None
        self._wakes_s = math.inf

    @contextmanager
    def limit(self, timeout_s: float, expire: Callable[[], None]) -> Iterator[None]:
        """Call `expire` if what is inside takes longer; never after it has ended.

        Args:
            timeout_s: how long it may take.
            expire: quick, called from another thread.
        """
        limit = _Limit(time.monotonic() + timeout_s, expire)
        with self._changed:
            self._limits.add(limit)
            if self._thread is None:
                # No reason for an ending program to wait.
                self._thread = threading.Thread(target=self._keep, daemon=True)
                self._thread.start()
            elif limit.moment_s < self._wakes_s:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._limits.discard(limit)

    def _keep(self) -> None:
        changed = self._changed
        with changed:
            while True:
                now_s = time.monotonic()
                for limit in [each for each in self._limits if each.moment_s <= now_s]:
                    self._limits.discard(limit)
                    limit.expire()
                # Limits that are lifted before leave this as it is: it wakes for nothing, rarely.
                self._wakes_s = min((each.moment_s for each in self._limits), default=math.inf)
                changed.wait(None if math.isinf(self._wakes_s) else self._wakes_s - now_s)
