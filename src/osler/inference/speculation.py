"""Guesses at the next tokens without a model: answers often copy from their prompt.

A guess (draft) is read together with the last token, and the scores tell at once how much of it
the model would have said itself; so the answer is the same with and without, and only the time
differs. Whether it pays depends on how often the guesses are right and on what reading a token
more costs; both are watched.
"""

from collections.abc import Sequence

# The longer the run of tokens that came before, the better the guess.
NGRAMS = (6, 3, 2)
PROBE = 2
LONGEST_PAUSE = 64


class PromptLookup:
    """Finds what followed the last time that the latest tokens came."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._known = 0

    def draft(self, ids: Sequence[int], most: int) -> list[int]:
        """Guess how a text goes on.

        Args:
            ids: prompt and answer so far; what an earlier call had, and more.
            most: tokens to guess.

        >>> PromptLookup().draft([1, 2, 3, 4, 5, 1, 2, 3], 2)
        [4, 5]
        """
        for place in range(self._known, len(ids)):
            for size in NGRAMS:
                if place >= size:
                    self._after[tuple(ids[place - size : place])] = place
        self._known = len(ids)
        for size in NGRAMS:
            place = self._after.get(tuple(ids[-size:]), len(ids))
            if place < len(ids):
                return list(ids[place : place + most])
        return []


class DraftCost:
    """What one token more costs in a step, as a share of the step without it.

    Attributes:
        share: the running estimate.
    """

    def __init__(self) -> None:
        self.share = 0.2  # int4 weights on a CPU: six tokens take 1.7 to 2.7 times as long as one
        self._plain_s: dict[int, float] = {}

    def observe(self, sequences: int, tokens: int, seconds: float) -> None:
        """Take in a step.

        Args:
            sequences: how many answers it extended.
            tokens: how many positions it read for them.
            seconds: how long it took.
        """
        plain_s = self._plain_s.get(sequences)
        if tokens == sequences:
            known_s = seconds if plain_s is None else plain_s
            self._plain_s[sequences] = known_s + 0.1 * (seconds - known_s)
        elif plain_s:
            share = (seconds / plain_s - 1) / (tokens - sequences)
            self.share += 0.1 * (min(max(share, 0.01), 1.0) - self.share)


class DraftPolicy:
    """Decides for one answer how far to guess ahead."""

    def __init__(self, most: int) -> None:
        """Begin hopefully.

        Args:
            most: tokens to guess at once; 0 for none, ever.
        """
        self._most = most
        self._right = 0.7
        self._pause = 1
        self._resting = 0

    def length(self, cost: float, sequences: int) -> int:
        """Tokens to guess now.

        Args:
            cost: of a token more, see `DraftCost.share`.
            sequences: answers that the step extends; all of them wait for the guesses of one.
        """
        if self._resting:
            self._resting -= 1
            return 0
        return max(self._best(cost, sequences), min(PROBE, self._most))

    def learn(self, drafted: int, right: int, cost: float, sequences: int) -> None:
        """Take in how a guess went.

        Args:
            drafted: tokens guessed.
            right: how many of them, from the first on, were right.
            cost: as `length` takes it.
            sequences: likewise.
        """
        for outcome in [1.0] * right + [0.0] * (right < drafted):
            self._right += 0.15 * (outcome - self._right)
        if self._best(cost, sequences):
            self._pause = 1
        else:
            self._resting = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _best(self, cost: float, sequences: int) -> int:
        """The number of tokens that gives most tokens a second; 0 where none does."""
        best, best_rate = 0, 1.0
        expected, chance = float(sequences), 1.0
        for tokens in range(1, self._most + 1):
            chance *= self._right
            expected += chance
            rate = expected / sequences / (1 + tokens * cost)
            if rate > best_rate:
                best, best_rate = tokens, rate
        return best
