"""Made-up identifiers, each of them unlike all others, so that one found was one left."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

_SYLLABLES = (
    "bar cel dov fen gur hal jor kel lum mir nov pra quen ros sul tam ulf ver wex zan".split()
)
_GIVEN = (
    "Agnes Bertram Cecily Dietmar Edith Fergus Gudrun Harald Imogen Joachim Katrin Leopold "
    "Mireille Norbert Ottilie Percival Quentin Rosalind Siegfried Theodora "
    "Ursula Valentin Wilhelmina Xaver"
).split()
_STREETS = "Elm Cedar Maple Juniper Willow Birch Chestnut Magnolia".split()


@dataclass(frozen=True, kw_only=True)
class Plant:
    """One identifier and where it was put.

    Attributes:
        place: the class of place, as "header PN" or "burned in".
        file: the name of the file.
        value: as it stands there; what is searched for, whatever the letter case.
        spot: of burned-in text: the pixels that it was drawn with, bool `(H, W)`.
    """

    place: str
    file: str
    value: str
    spot: NDArray[np.bool_] | None = None


class Identifiers:
    """Makes identifiers.

    Args:
        seed: the same gives the same.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._taken: set[str] = set()

    def word(self) -> str:
        """A word that no text holds."""
        return self._new(lambda: "".join(self.random.sample(_SYLLABLES, 3)).capitalize())

    def given(self) -> str:
        """A given name that there is."""
        return self.random.choice(_GIVEN)

    def digits(self, count: int) -> str:
        """A number that does not begin with 0."""
        return self._new(lambda: str(self.random.randrange(10 ** (count - 1), 10**count)))

    def day(self) -> date:
        """A day that no other identifier has."""
        first = date(1930, 1, 1)
        text = self._new(
            lambda: (first + timedelta(days=self.random.randrange(34_000))).isoformat()
        )
        return date.fromisoformat(text)

    def phone(self) -> str:
        """A telephone number of nobody's."""
        return f"({self.random.randrange(201, 990)}) 555-{self.digits(4)}"

    def street(self) -> str:
        """A house in a street."""
        return f"{self.digits(4)} {self.random.choice(_STREETS)} Street"

    def uid(self) -> str:
        """A UID as a device would make it."""
        return f"1.2.826.0.1.3680043.10.{self.digits(9)}.{self.digits(8)}"

    def _new(self, make: Callable[[], str]) -> str:
        while (value := make()) in self._taken:
            pass
        self._taken.add(value)
        return value
