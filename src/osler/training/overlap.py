"""Whether a text is in a benchmark already, word for word or nearly so.

Exact rather than by MinHash: a million passages fit in memory as numbers.

Source: 13 words, and leaving out what many questions say: GPT-3 (arXiv 2005.14165), appendix C.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from osler.errors import UnreadableFileError

# Words of a passage that two texts do not share by chance.
PASSAGE_WORDS = 13
# Words of the pieces by which reworded texts are found: the share of a text's pieces that one
# known text has, and how many at least.
PIECE_WORDS = 4
NEAR = 0.7
_LEAST_PIECES = 3
# What so many known texts say is a turn of phrase, as "which of the following is the most".
_COMMON = 10
# Shorter strings in a benchmark's records are labels and letters.
_LEAST_WORDS = 5


@dataclass(frozen=True)
class Overlap:
    """How a text is known: its words are, a passage is, or most of its pieces are."""

    kind: Literal["exact", "passage", "near"]


class KnownTexts:
    """Texts that others must not repeat.

    Args:
        texts: questions of benchmarks, or what was accepted before.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._whole: set[int] = set()
        self._passages: Counter[int] = Counter()
        # Which texts hold a piece; no more of them than make it a turn of phrase.
        self._pieces: dict[int, list[int]] = {}
        self._count = 0
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> None:
        """Know one text more."""
        words = _words(text)
        self._whole.add(_number(words))
        self._passages.update(set(_runs(words, PASSAGE_WORDS)))
        for piece in set(_runs(words, PIECE_WORDS)):
            holders = self._pieces.setdefault(piece, [])
            if len(holders) < _COMMON:
                holders.append(self._count)
        self._count += 1

    def find(self, text: str) -> Overlap | None:
        """How a text is known; None where it is new.

        Case, punctuation and spaces do not count.
        """
        words = _words(text)
        if _number(words) in self._whole:
            return Overlap("exact")
        if any(0 < self._passages[passage] < _COMMON for passage in _runs(words, PASSAGE_WORDS)):
            return Overlap("passage")
        holders = [self._pieces.get(piece, []) for piece in set(_runs(words, PIECE_WORDS))]
        telling = [texts for texts in holders if len(texts) < _COMMON]
        shared = Counter(number for texts in telling for number in texts)
        if max(shared.values(), default=0) >= max(_LEAST_PIECES, NEAR * len(telling)):
            return Overlap("near")
        return None


def benchmark_texts(folder: Path) -> Iterator[str]:
    """Every sentence or longer string in the records of benchmarks.

    Args:
        folder: of `*.jsonl` and `*.jsonl.gz` files.

    Raises:
        UnreadableFileError: there are none, or one is damaged.
    """
    paths = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    if not paths:
        raise UnreadableFileError(f"{folder}: no benchmarks (*.jsonl, *.jsonl.gz) in this folder")
    for path in paths:
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    yield from _strings(json.loads(line))
        except (OSError, EOFError, ValueError) as error:
            raise UnreadableFileError(f"{path}: not readable lines of JSON") from error


def _strings(value: Any) -> Iterator[str]:
    """The strings of a record that are long enough to mean something by themselves."""
    if isinstance(value, str):
        if len(value.split()) >= _LEAST_WORDS:
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _runs(words: list[str], size: int) -> Iterator[int]:
    """Numbers of all runs of `size` words; of a shorter text, of the whole."""
    for start in range(max(1, len(words) - size + 1)):
        if run := words[start : start + size]:
            yield _number(run)


def _number(words: list[str]) -> int:
    return int.from_bytes(blake2b(" ".join(words).encode(), digest_size=8).digest())
