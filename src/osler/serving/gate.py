"""How much a server has taken on: answers in the making, and bytes held for them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from osler.errors import GenerationCancelledError
from osler.serving.failure import ApiError, busy
from osler.serving.settings import ServerSettings


class Gate:
    """Lets requests in as long as there is room.

    Attributes:
        is_draining: nothing new is let in; what is in may end.
        requests: API requests being answered.
        answers: answers in the making.
        held_bytes: bodies and prepared images in memory.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.is_draining = False
        self.requests = 0
        self.answers = 0
        self.held_bytes = 0
        self._settings = settings
        self._lock = threading.Lock()  # prepared images are counted from other threads

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one request until it is answered.

        Raises:
            ApiError: 503 while draining.
        """
        if self.is_draining:
            raise ApiError(
                503,
                "the server is shutting down",
                code="shutting_down",
                headers={"Retry-After": "10"},
            )
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def entry(self) -> Iterator["Entry"]:
        """Let one request in, which gives back all that it took when it leaves."""
        entry = Entry(self)
        try:
            yield entry
        finally:
            entry.leave()

    def change(self, answers: int, held_bytes: int) -> None:
        """Take more or give back.

        Raises:
            ApiError: 429, more than there is room for; 413, more than there will ever be.
        """
        with self._lock:
            if answers > 0 and self.answers + answers > self._settings.max_requests:
                raise busy(f"{self.answers} answers are in the making; try again later")
            most = self._settings.max_held_bytes
            if held_bytes > most:
                raise ApiError(413, f"the request's images need more than {most:,} bytes")
            if held_bytes > 0 and self.held_bytes + held_bytes > most:
                raise busy("the requests in the making hold all the memory that they may")
            self.answers += answers
            self.held_bytes += held_bytes


class Entry:
    """What one request has taken of a `Gate`; used by the event loop and by one thread."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lock = threading.Lock()
        self._has_left = False
        self._answers = 0
        self._held_bytes = 0

    def take_answers(self, count: int) -> None:
        """Take on answers.

        Raises:
            ApiError: as `Gate.change`.
            GenerationCancelledError: the request is over.
        """
        self._take(count, 0)

    def hold(self, count_bytes: int) -> None:
        """Hold more bytes.

        Raises:
            ApiError: as `Gate.change`.
            GenerationCancelledError: the request is over.
        """
        self._take(0, count_bytes)

    def leave(self) -> None:
        """Give everything back, and take nothing more."""
        with self._lock:
            self._has_left = True
            self._gate.change(-self._answers, -self._held_bytes)

    def _take(self, answers: int, held_bytes: int) -> None:
        with self._lock:
            if self._has_left:  # a thread was still busy when the client left
                raise GenerationCancelledError("the client left")
            self._gate.change(answers, held_bytes)
            self._answers += answers
            self._held_bytes += held_bytes
