"""From the scores of one position to one token.

The guard against repetition and the filters mean what the logits processors of `transformers`
mean, and run in its order. Everything here is in numpy, on the thread that calls, and sums in
float64, so that a sequence draws the same tokens wherever the model ran.

Shapes: V vocabulary, L ids so far, K ids that remain.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osler.errors import NonFiniteError, PromptError
from osler.native.library import library
from osler.native.top_k import top_k

BANNED = -math.inf
_FEW = 256  # tokens that the native engine picks out faster than numpy

# Scores as the model gives them, or wider.
Scores = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to choose tokens, and when to stop.

    Attributes:
        max_new_tokens: the most tokens to generate, at least 1.
        temperature: 0 takes the best token always; above 1 flattens the distribution.
        top_k: keep the k best tokens; 0 keeps all.
        top_p: keep the fewest best tokens whose probabilities reach this sum, above 0 to 1.
        min_p: drop tokens less probable than this share of the best one, 0 to 1.
        repetition_penalty: what the scores of tokens already in prompt or answer are divided by
            (multiplied, where negative); 1 for none.
        no_repeat_ngram_size: no run of this many tokens comes twice, counting the prompt; 0 for
            no such rule.
        stop: the answer, not the thought, ends before the first of these texts.
        seed: every prompt's random numbers start from it, alone or in a batch; None for others
            each time.
        logprobs: report each token's log-probability and those of so many of the most probable
            ones, 0 to 20; None for no report.
        schema: a JSON schema that the answer, not the thought, is to satisfy.
        regex: a regular expression that it is to match as a whole, instead of a schema.

    Raises:
        PromptError: a value outside its range.
    """

    max_new_tokens: int = 200
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    stop: Sequence[str] = ()
    seed: int | None = None
    logprobs: int | None = None
    schema: str | Mapping[str, Any] | None = None
    regex: str | None = None

    def __post_init__(self) -> None:
        # Written as what holds rather than what fails, so that a NaN is refused too.
        ranges = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < math.inf, "finite and at least 0"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "finite and above 0"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "at least 0"),
            "stop": (
                not isinstance(self.stop, str) and all(self.stop),
                "a list of texts, none of them empty",
            ),
            "seed": (self.seed is None or 0 <= self.seed < 2**63, "from 0 to 2**63 - 1"),
            "logprobs": (self.logprobs is None or 0 <= self.logprobs <= 20, "from 0 to 20"),
            "regex": (self.regex is None or self.schema is None, "absent where a schema is given"),
        }
        for name, (holds, wanted) in ranges.items():
            if not holds:
                raise PromptError(f"{name} is {getattr(self, name)!r}; it must be {wanted}")

    def generator(self) -> random.Random:
        """A source of random numbers for one sequence, at its beginning.

        Python promises that the same seed gives the same numbers in all its versions, which
        numpy and torch do not.
        """
        return random.Random(self.seed)


def guard(logits_V: Scores, ids_L: NDArray[np.int64], params: SamplingParams) -> Scores:
    """Make repetition less likely, as `params` asks.

    Args:
        logits_V: scores of the next token; not changed.
        ids_L: prompt and answer so far. Ids beyond V (image tokens) are passed over.
        params: `repetition_penalty` and `no_repeat_ngram_size` count here.

    Returns:
        (V,), banned tokens at minus infinity; `logits_V` itself where nothing was asked for.

    Source: CTRL (arXiv 1909.05858), section 4.1, for the penalty.
    """
    vocab_size = len(logits_V)
    if params.repetition_penalty != 1:
        seen = ids_L[ids_L < vocab_size]
        score = logits_V[seen]
        penalty = params.repetition_penalty
        logits_V = logits_V.copy()
        logits_V[seen] = np.where(score < 0, score * penalty, score / penalty)
    size = params.no_repeat_ngram_size
    if 0 < size <= len(ids_L):
        ngrams = np.lib.stride_tricks.sliding_window_view(ids_L, size)
        last_words = ids_L[len(ids_L) - size + 1 :]
        repeated = ngrams[(ngrams[:, :-1] == last_words).all(axis=1), -1]
        logits_V = logits_V.copy()
        logits_V[repeated[repeated < vocab_size]] = BANNED
    return logits_V


def narrow(
    logits_V: Scores, params: SamplingParams
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Apply temperature, top-k, top-p and min-p, in this order.

    A vocabulary is large and what remains of it small, so that it is sorted as little as possible.

    Args:
        logits_V: scores of the next token.
        params: with a `temperature` above 0.

    Returns:
        int64 (K,), the ids that remain, ascending, and their scores to draw from, float64 (K,).

    Source: nucleus sampling (arXiv 1904.09751); min-p (arXiv 2407.01082).
    """
    if 0 < params.top_k < len(logits_V):
        ids_K = np.flatnonzero(logits_V >= logits_V[_best(logits_V, params.top_k)[-1]])
        rest = 0.0
    elif params.top_p < 1:
        ids_K, rest = _head(logits_V, params)
    else:
        ids_K, rest = np.arange(len(logits_V)), 0.0
    scores_K = logits_V[ids_K].astype(np.float64) / params.temperature
    if params.top_p < 1:
        ascending = scores_K.argsort(kind="stable")
        shares = rest + (1 - rest) * _softmax(scores_K[ascending]).cumsum()
        tail = ascending[:-1][shares[:-1] <= 1 - params.top_p]
        kept = np.ones(len(ids_K), bool)
        kept[tail] = False
        ids_K, scores_K = ids_K[kept], scores_K[kept]
    if params.min_p > 0:
        kept = np.exp(scores_K - scores_K.max()) >= params.min_p
        ids_K, scores_K = ids_K[kept], scores_K[kept]
    return ids_K, scores_K


def _best(logits_V: Scores, count: int) -> NDArray[np.int64]:
    """The ids of the highest scores, best first."""
    native = library()
    if native is not None and count <= _FEW and logits_V.dtype == np.float32:
        return top_k(native, logits_V.astype(np.float32, copy=False), count).astype(np.int64)
    ids_K = np.argpartition(logits_V, -count)[-count:]
    return ids_K[np.lexsort((ids_K, -logits_V[ids_K]))]


def _softmax(scores_K: NDArray[np.float64]) -> NDArray[np.float64]:
    odds_K = np.exp(scores_K - scores_K.max())
    return np.asarray(odds_K / odds_K.sum())


def _head(logits_V: Scores, params: SamplingParams) -> tuple[NDArray[np.int64], float]:
    """The ids of the best tokens, as many as reach `top_p` surely, and what the rest amounts to."""
    weights_V = np.exp((logits_V - logits_V.max()) / params.temperature)
    total = weights_V.sum(dtype=np.float64)
    for weight in (1e-4, 1e-6, 1e-8):
        near_V = weights_V >= weight
        rest = 1 - float(weights_V[near_V].sum(dtype=np.float64) / total)
        if 1 - rest > params.top_p + 1e-6:
            return np.flatnonzero(near_V), rest
    return np.arange(len(logits_V)), 0.0


def sample(
    logits_V: NDArray[np.float32],
    ids_L: NDArray[np.int64],
    params: SamplingParams,
    generator: random.Random,
    *,
    never: int | None = None,
    allowed_V: NDArray[np.bool_] | None = None,
) -> int:
    """Choose the next token.

    Args:
        logits_V: the model's scores; not changed.
        ids_L: prompt and answer so far.
        params: how to choose.
        generator: advanced by one number, where a token is drawn.
        never: an id that is not to be chosen.
        allowed_V: True at the only ids that may be chosen, of which there is one at least; where
            the guard against repetition bans all of these, it gives way.

    Returns:
        The token's id.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    if not np.isfinite([logits_V.min(), logits_V.max()]).all():
        raise NonFiniteError(
            f"the model's scores at position {len(ids_L)} are not finite;"
            " float16 overflows in this family: use bfloat16 or float32"
        )
    scores_V: Scores = logits_V.copy()
    if never is not None and never < len(scores_V):
        scores_V[never] = BANNED
    if allowed_V is not None:
        scores_V[~allowed_V] = BANNED
    guarded_V = guard(scores_V, ids_L, params)
    if guarded_V is not scores_V and guarded_V.max() > BANNED:
        scores_V = guarded_V
    if params.temperature == 0:
        return int(scores_V.argmax())
    # One uniform number through the inverse of the cumulative distribution: a difference in the
    # last bits of the scores, as between batch sizes, then almost never changes the token.
    ids_K, scores_K = narrow(scores_V, params)
    cumulative_K = _softmax(scores_K).cumsum()
    drawn = np.searchsorted(cumulative_K / cumulative_K[-1], generator.random(), side="right")
    return int(ids_K[drawn])


@dataclass(frozen=True)
class TokenLogprob:
    """How probable the model found a token before anything was banned or sharpened.

    Attributes:
        token_id: the token that was chosen.
        logprob: natural logarithm of its probability.
        top: the most probable tokens with theirs, best first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def token_logprob(logits_V: NDArray[np.float32], token_id: int, top: int) -> TokenLogprob:
    """Report on a chosen token.

    Args:
        logits_V: the model's scores, finite.
        token_id: the token.
        top: how many of the most probable tokens to report.
    """
    ids_K = _best(logits_V, max(top, 1))
    highest = logits_V[ids_K[0]]
    total = float(highest) + math.log(np.exp(logits_V - highest).sum(dtype=np.float64))
    logprobs = (logits_V[ids_K].astype(np.float64) - total).tolist()
    pairs = zip(ids_K[:top].tolist(), logprobs, strict=False)
    return TokenLogprob(token_id, float(logits_V[token_id]) - total, tuple(pairs))
