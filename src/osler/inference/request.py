"""A question handed to an engine: what comes back, and how to call it off."""

import threading
from collections import deque
from collections.abc import Callable, Iterator

from osler.inference.continuation import Generation, Piece

Event = Piece | Generation | BaseException


class Request(Iterator[Piece | Generation]):
    """Iterate for pieces of text as they settle; the last that comes is the `Generation`.

    May be iterated in any thread, by one at a time.
    """

    def __init__(
        self,
        wait: Callable[[Callable[[], bool]], None],
        settle: Callable[[], None],
        cancelled: threading.Event,
    ) -> None:
        """Made by `Engine.submit`.

        Args:
            wait: returns when the function given to it says yes.
            settle: told after cancelling.
            cancelled: once set, the answer ends at the next token.
        """
        self._wait = wait
        self._settle = settle
        self._cancelled = cancelled
        self._events: deque[Event] = deque()
        self._ended = False

    def __next__(self) -> Piece | Generation:
        """The next event.

        Raises:
            NonFiniteError: the model's scores are NaN or infinite.
            PromptError: the schema or expression turned out to be too complex.
            Exception: what else the runner raised.
        """
        if self._ended:
            raise StopIteration
        self._wait(self.has_event)
        event = self._events.popleft()
        self._ended = not isinstance(event, Piece)
        if isinstance(event, BaseException):
            raise event
        return event

    def has_event(self) -> bool:
        """Whether an event can be taken without waiting."""
        return bool(self._events)

    @property
    def ended(self) -> bool:
        """Whether the last event was taken."""
        return self._ended

    @property
    def is_cancelled(self) -> bool:
        """Whether it was called off."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Call it off: the answer ends as "cancelled" at the next token."""
        self._cancelled.set()
        self._settle()

    def tell(self, *events: Event) -> None:
        """Add what the engine has for it."""
        self._events.extend(events)
