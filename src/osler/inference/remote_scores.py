"""Log-probabilities as OpenAI's protocol tells them: by a token's bytes, not by its id."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ScoredToken:
    """A token of an answer.

    Attributes:
        token: its bytes.
        top: bytes and log-probability of the most probable tokens in its place.
    """

    token: bytes
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True, kw_only=True)
class ScoredAnswer:
    """A whole answer; `is_complete` where the model ended it itself."""

    tokens: tuple[ScoredToken, ...]
    is_complete: bool


class ScoredAnswerReader:
    """Collects the tokens of an answer as it comes."""

    def __init__(self) -> None:
        self._tokens: list[ScoredToken] = []
        self._finish_reason: str | None = None
        self._has_text = False

    def read(self, chunk: Mapping[str, Any]) -> None:
        """Take one chunk in; what is not of the protocol's form is passed over."""
        choices = chunk.get("choices")
        if not choices or not isinstance(choices, list) or not isinstance(choices[0], dict):
            return
        choice = choices[0]
        if isinstance(choice.get("finish_reason"), str):
            self._finish_reason = choice["finish_reason"]
        delta = choice.get("delta")
        self._has_text |= isinstance(delta, dict) and bool(delta.get("content"))
        logprobs = choice.get("logprobs")
        entries = logprobs.get("content") if isinstance(logprobs, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            if (token := _scored(entry)) is not None:
                top = map(_scored, _list(entry, "top_logprobs"))
                kept = tuple(one for one in top if one is not None)
                self._tokens.append(ScoredToken(token[0], kept))

    def whole(self) -> ScoredAnswer:
        """The answer.

        Raises:
            ValueError: it broke off, or came without log-probabilities.
        """
        if self._finish_reason is None:
            raise ValueError("broke off before the answer's end")
        if self._has_text and not any(token.top for token in self._tokens):
            raise ValueError("gives no log-probabilities")
        return ScoredAnswer(tokens=tuple(self._tokens), is_complete=self._finish_reason != "length")


def _scored(entry: Any) -> tuple[bytes, float] | None:
    """A token's bytes with its log-probability; a server without bytes gives its text."""
    if not isinstance(entry, dict) or not isinstance(entry.get("logprob"), int | float):
        return None
    spelt, text = entry.get("bytes"), entry.get("token")
    if isinstance(spelt, list) and all(isinstance(b, int) and 0 <= b < 256 for b in spelt):
        return bytes(spelt), float(entry["logprob"])
    return (text.encode(), float(entry["logprob"])) if isinstance(text, str) else None


def _list(entry: Any, name: str) -> list[Any]:
    found = entry.get(name) if isinstance(entry, dict) else None
    return found if isinstance(found, list) else []
