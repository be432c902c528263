"""Parts a thinking model's thought from its answer.

Thinking models write `<unused94>thought` and a newline, the thought, `<unused95>`, the answer.
"""

from typing import NamedTuple

from osler.inference.stop import first_mark, undecided

OPENING = "<unused94>"
CLOSING = "<unused95>"
LABEL = "thought\n"


class Split(NamedTuple):
    """Text of both kinds, in the order of its kind."""

    thought: str
    answer: str


class ThoughtSplitter:
    """Sends streamed text to the thought or to the answer; the marks themselves go nowhere."""

    def __init__(self) -> None:
        self._held = ""
        self._in_thought = False
        self._before_label = False

    @property
    def in_thought(self) -> bool:
        """Whether a thought is open."""
        return self._in_thought

    def push(self, text: str) -> Split:
        """Take more text and give out what is certain to be one or the other."""
        self._held += text
        thought = answer = ""
        while self._held:
            if self._before_label:
                if self._held != LABEL and LABEL.startswith(self._held):
                    break
                self._before_label = False
                self._held = self._held.removeprefix(LABEL)
            hit = first_mark(self._held, (OPENING, CLOSING))
            cut = hit[0] if hit else len(self._held) - undecided(self._held, (OPENING, CLOSING))
            if self._in_thought:
                thought += self._held[:cut]
            else:
                answer += self._held[:cut]
            self._held = self._held[cut:]
            if hit is None:
                break
            self._held = self._held.removeprefix(hit[1])
            self._in_thought = self._before_label = hit[1] == OPENING
        return Split(thought, answer)

    def finish(self) -> Split:
        """Give out what was held back: half a mark is text, half a label is not."""
        text = "" if self._before_label else self._held
        self._held = ""
        return Split(text, "") if self._in_thought else Split("", text)


def split_thought(text: str) -> Split:
    """Part a whole text; an unclosed thought leaves an empty answer.

    >>> split_thought("<unused94>thought\\nlook at the apex<unused95>No pneumothorax.")
    Split(thought='look at the apex', answer='No pneumothorax.')
    """
    splitter = ThoughtSplitter()
    first, last = splitter.push(text), splitter.finish()
    return Split(first.thought + last.thought, first.answer + last.answer)
