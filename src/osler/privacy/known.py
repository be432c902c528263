"""What is known of the people and numbers of a patient's files, found again wherever it stands."""

import re
import unicodedata
from collections.abc import Iterable

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_SPLIT = re.compile(r"[^\W_]+")
_NOT_NAMES = frozenset(
    """
    dr md phd mr mrs ms miss prof jr sr ii iii iv and the of von van der den de la le du di da el
    al bin unknown anonymous anon none null na test patient doctor physician nurse hospital clinic
    center centre medical health general university department radiology
    """.split()
)
# Names that are words, too: they are names only where a capital begins them.
_WORDS = frozenset(
    """
    april august bell berry black bone brook brown bush call case chance church cook cross day dean
    drake early easter fields fine fish flood ford forest foster fox frank free gene good grace
    grant gray gray green grey hall hand hardy harm head heart hill hood hope house hunt hunter ice
    joy june keen key king knight lake lamb lane law lee little long lord love low major mark may
    mercy miller mind moody moon moore new noble page pain park parks penny piece pope post powers
    price ray read reed rice rich rose rush sage salt sharp short small smart spring star stark
    stone strong summer swift tall thin vein violet wall ward waters way weak webb weeks wells west
    white will winter wise wolf wood woods worth young
    """.split()
)
_SHORTEST_LITERAL = 4
_WORD_OF_CAPITALS = 3


def plain(word: str) -> str:
    """A word without case and accents.

    >>> plain("Müller")
    'muller'
    """
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


class Known:
    """Names and numbers that must not remain.

    Args:
        names: of people, in whatever order and form; each word of them counts.
        literals: numbers, addresses, names of places: each counts as a whole.
        capitals_only: names count where a capital begins them.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        literals: Iterable[str] = (),
        *,
        capitals_only: bool = False,
    ) -> None:
        self._capitals_only = capitals_only
        self.names = frozenset(
            word
            for name in names
            for whole in _WORD.findall(name)
            for word in {plain(whole), *map(plain, _SPLIT.findall(whole))}
            if len(word) > 1 and not word.isdigit() and word not in _NOT_NAMES
        )
        self.literals = frozenset(
            text
            for literal in literals
            if len(text := " ".join(literal.split())) >= _SHORTEST_LITERAL
            and any(map(str.isalnum, text))
        )
        self._literal = _any_of(self.literals)

    def redact(self, text: str) -> tuple[str, int]:
        """The text with what is known replaced, and how often that was.

        >>> Known(["Doe^Jane"], ["4471923"]).redact("jane doe's number, 4471923, is long")
        ("[NAME]'s number, [ID], is long", 3)
        """
        count = 0
        if self._literal is not None:
            text, count = self._literal.subn("[ID]", text)
        if not self.names:
            return text, count
        pieces: list[str] = []
        end = 0
        for match in _WORD.finditer(text):
            length = self._name_length(match[0], text, match.start())
            if not length:
                continue
            count += 1
            between = text[end : match.start()]
            if not (pieces and pieces[-1] == "[NAME]" and not between.strip(" ,.^")):
                pieces += [between, "[NAME]"]
            end = match.start() + length
        return "".join(pieces) + text[end:], count

    def holds(self, text: str) -> bool:
        """Whether anything of it stands in a text."""
        return self.redact(text)[1] > 0

    def _name_length(self, word: str, text: str, start: int) -> int:
        """How much of a word is a name."""
        if text[start - 1 : start] == "[" and text[start + len(word) :][:1] == "]":
            return 0  # what we have put there
        stem = re.sub("['’]s?$", "", word)
        for candidate in (stem, *_SPLIT.findall(stem)):
            if plain(candidate) in self.names and self._may_be_name(candidate):
                return len(stem)
        return 0

    def _may_be_name(self, word: str) -> bool:
        is_word = plain(word) in _WORDS or len(word) < _WORD_OF_CAPITALS
        return word[0].isupper() or not (is_word or self._capitals_only)


def _any_of(literals: Iterable[str]) -> re.Pattern[str] | None:
    """Finds any of them as a whole, whatever the blanks and letter case."""
    longest_first = sorted(literals, key=lambda literal: (-len(literal), literal))
    if not longest_first:
        return None
    forms = (r"\s+".join(map(re.escape, literal.split())) for literal in longest_first)
    return re.compile(rf"(?<!\w)(?:{'|'.join(forms)})(?!\w)", re.IGNORECASE)
