"""Ends an answer before a stop string, wherever the pieces of the stream are cut."""

from collections.abc import Sequence


def first_mark(text: str, marks: Sequence[str]) -> tuple[int, str] | None:
    """Find the mark that is complete first, the longest of those that end together.

    A stream of characters would come upon this one first, so the result does not depend on how a
    stream is cut.

    >>> first_mark("abcd", ["abcd", "bc"])
    (1, 'bc')
    """
    found = [(start, mark) for mark in marks if (start := text.find(mark)) >= 0]
    return min(found, key=lambda hit: (hit[0] + len(hit[1]), hit[0]), default=None)


def undecided(text: str, marks: Sequence[str]) -> int:
    """Count the characters at the end of a text that may be the beginning of a mark.

    >>> undecided("yes <end", ["<end>"])
    4
    """
    longest = max(map(len, marks), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0


class StopMatcher:
    """Passes text on until one of the stop strings comes; the stop string is not given out.

    Attributes:
        stopped: a stop string came; nothing is given out after it.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.stopped = False
        self._stop = stop
        self._held = ""

    def push(self, text: str) -> str:
        """Take more text and give out what is certain to stand before any stop string."""
        if self.stopped:
            return ""
        text = self._held + text
        if hit := first_mark(text, self._stop):
            self.stopped, self._held = True, ""
            return text[: hit[0]]
        keep = len(text) - undecided(text, self._stop)
        self._held = text[keep:]
        return text[:keep]

    def finish(self) -> str:
        """Give out what was held back and turned out to be no stop string."""
        text, self._held = self._held, ""
        return text
