"""One prompt and the answer that grows from it.

Shapes: V vocabulary, L ids so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from osler.inference.detokenize import Detokenizer
from osler.inference.sampling import SamplingParams, TokenLogprob, sample, token_logprob
from osler.inference.stop import StopMatcher
from osler.inference.thought import Split, ThoughtSplitter
from osler.models.config import MedGemmaConfig
from osler.preprocess.tokenizer import Tokenizer

if TYPE_CHECKING:
    from osler.inference.constraint import Constraint

FinishReason = Literal["stop", "length", "cancelled", "timeout"]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Text that a step added to one answer or its thought; never empty, never half a character.

    Attributes:
        index: which prompt of the batch.
        text: to be put behind the pieces before it.
        is_thought: whether it belongs to the thought or to the answer.
        logprobs: of the tokens drawn since the piece before, where they were asked for.
    """

    index: int
    text: str
    is_thought: bool
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GenerationTimings:
    """Where the time went. Steps that requests share count in full for each of them.

    Attributes:
        queue_s: waiting for a place among those that are worked on.
        image_encode_s: embedding the images.
        prefill_s: reading the prompt and choosing the first token.
        decode_s: the steps after that, as long as this answer took part in them.
        prompt_tokens: ids of the prompt, image tokens included.
        new_tokens: ids generated, thought and end token included.
    """

    queue_s: float
    image_encode_s: float
    prefill_s: float
    decode_s: float
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One finished answer.

    Attributes:
        index: which prompt of the batch.
        text: the answer, without thought, special tokens and stop string.
        thought: what a thinking model wrote before; "" where it wrote nothing.
        ids: all generated ids, thought, stop string and end token included.
        finish_reason: "stop" at an end token or a stop string, "length" at `max_new_tokens` or
            the context's limit, "cancelled" by the caller, "timeout" at the deadline.
        timings: where the time went.
        cached_tokens: ids at the prompt's beginning that had been read for an earlier request.
        logprobs: of all `ids`, where they were asked for.
    """

    index: int
    text: str
    thought: str
    ids: tuple[int, ...]
    finish_reason: FinishReason
    timings: GenerationTimings
    cached_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


class Continuation:
    """A prompt's ids, the ids drawn after them, and their text.

    Attributes:
        ids: prompt and answer so far.
        prompt_tokens: how many of them are the prompt's.
        finish_reason: None while the answer grows.
    """

    def __init__(
        self,
        index: int,
        prompt_ids: Sequence[int],
        *,
        config: MedGemmaConfig,
        tokenizer: Tokenizer,
        params: SamplingParams,
        context_tokens: int,
        constraint: "Constraint | None" = None,
    ) -> None:
        """Begin with the prompt.

        Args:
            index: the number that pieces and generation bear.
            prompt_ids: the prompt.
            config: the model's.
            tokenizer: the model's.
            params: how to choose tokens and when to stop.
            context_tokens: the most ids of prompt and answer together.
            constraint: what the answer is kept to.
        """
        self.index = index
        self.ids = list(prompt_ids)
        self.prompt_tokens = len(self.ids)
        self.finish_reason: FinishReason | None = None
        self._params = params
        self._config = config
        self._constraint = constraint
        self._most_ids = min(self.prompt_tokens + params.max_new_tokens, context_tokens)
        # The same ids again, for the guard against repetition.
        self._ids_M = np.empty(self._most_ids, np.int64)
        self._ids_M[: self.prompt_tokens] = self.ids
        self._generator = params.generator()
        self._detokenizer = Detokenizer(tokenizer)
        self._splitter = ThoughtSplitter()
        self._stop = StopMatcher(params.stop)
        self._thought: list[str] = []
        self._answer: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._told_logprobs = 0

    def extend(self, logits_V: NDArray[np.float32]) -> list[Piece]:
        """Choose the next token, and finish where it is the last.

        Args:
            logits_V: the model's scores.

        Returns:
            The text that this settled.

        Raises:
            NonFiniteError: a score is NaN or infinite.
            PromptError: the schema or expression turned out to be too complex.
        """
        constrained = self._constraint is not None and not self._splitter.in_thought
        allowed_V = None
        if self._constraint is not None and constrained:
            begins = len(self.ids) == self.prompt_tokens
            allowed_V = self._constraint.allowed(may_think=begins)
        # An image token in an answer would ask the model for an image that is not there.
        token_id = sample(
            logits_V,
            self._ids_M[: len(self.ids)],
            self._params,
            self._generator,
            never=self._config.image_token_id,
            allowed_V=allowed_V,
        )
        if self._params.logprobs is not None:
            self._logprobs.append(token_logprob(logits_V, token_id, self._params.logprobs))
        self._ids_M[len(self.ids)] = token_id
        self.ids.append(token_id)
        if token_id in self._config.eos_token_ids:
            return self.finish("stop")
        pieces = self._pieces(self._splitter.push(self._detokenizer.push(token_id)))
        if self._constraint is not None and constrained and not self._splitter.in_thought:
            self._constraint.push(token_id)
            if self._constraint.complete:
                return [*pieces, *self.finish("stop")]
        if self._stop.stopped:
            self.finish_reason = "stop"
        elif len(self.ids) >= self._most_ids:
            pieces += self.finish("length")
        return pieces

    def forced(self, most: int) -> list[int]:
        """Tokens that the constraint leaves no choice about, though they may be spelt in others."""
        if self._constraint is None or self._splitter.in_thought:
            return []
        return self._constraint.forced()[: self.room(most)]

    def room(self, most: int) -> int:
        """How many tokens may be guessed before one that is chosen; `most` or fewer."""
        return max(0, min(most, self._most_ids - len(self.ids) - 1))

    def finish(self, reason: FinishReason) -> list[Piece]:
        """End the answer and give out what was held back."""
        pieces = self._pieces(self._splitter.push(self._detokenizer.finish()))
        pieces += self._pieces(self._splitter.finish())
        pieces += self._added(self._stop.finish(), is_thought=False)
        self.finish_reason = "stop" if self._stop.stopped else reason
        return pieces

    def generation(
        self,
        *,
        queue_s: float,
        image_encode_s: float,
        prefill_s: float,
        decode_s: float,
        cached_tokens: int,
    ) -> Generation:
        """The finished answer.

        Args:
            queue_s: see `GenerationTimings`, as the next ones.
            image_encode_s: likewise.
            prefill_s: likewise.
            decode_s: likewise.
            cached_tokens: see `Generation`.

        Raises:
            ValueError: it has not finished.
        """
        if self.finish_reason is None:
            raise ValueError("the answer is not finished")
        ids = tuple(self.ids[self.prompt_tokens :])
        return Generation(
            index=self.index,
            text="".join(self._answer),
            thought="".join(self._thought),
            ids=ids,
            finish_reason=self.finish_reason,
            cached_tokens=cached_tokens,
            logprobs=None if self._params.logprobs is None else tuple(self._logprobs),
            timings=GenerationTimings(
                queue_s=queue_s,
                image_encode_s=image_encode_s,
                prefill_s=prefill_s,
                decode_s=decode_s,
                prompt_tokens=self.prompt_tokens,
                new_tokens=len(ids),
            ),
        )

    def _pieces(self, split: Split) -> list[Piece]:
        return [
            *self._added(split.thought, is_thought=True),
            *self._added(self._stop.push(split.answer), is_thought=False),
        ]

    def _added(self, text: str, *, is_thought: bool) -> list[Piece]:
        if not text:
            return []
        (self._thought if is_thought else self._answer).append(text)
        logprobs = tuple(self._logprobs[self._told_logprobs :])
        self._told_logprobs = len(self._logprobs)
        return [Piece(index=self.index, text=text, is_thought=is_thought, logprobs=logprobs)]
