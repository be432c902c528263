"""One prompt and the answer that grows from it.

Shapes: V vocabulary, L ids so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from osler.inference.detokenize import Detokenizer
from osler.inference.sampling import SamplingParams, sample
from osler.inference.stop import StopMatcher
from osler.inference.thought import Split, ThoughtSplitter
from osler.models.config import MedGemmaConfig
from osler.preprocess.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Text that a step added to one answer or its thought; never empty, never half a character.

    Attributes:
        index: which prompt of the batch.
        text: to be put behind the pieces before it.
        is_thought: whether it belongs to the thought or to the answer.
    """

    index: int
    text: str
    is_thought: bool


@dataclass(frozen=True, kw_only=True)
class GenerationTimings:
    """Where the time went. Stages that a batch shares count in full for each of its prompts.

    Attributes:
        image_encode_s: embedding the images.
        prefill_s: reading the prompt and choosing the first token.
        decode_s: the steps after that, as long as this answer took part in them.
        prompt_tokens: ids of the prompt, image tokens included.
        new_tokens: ids generated, thought and end token included.
    """

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
            the model's context limit, "cancelled" by the caller.
        timings: where the time went.
    """

    index: int
    text: str
    thought: str
    ids: tuple[int, ...]
    finish_reason: FinishReason
    timings: GenerationTimings


class Continuation:
    """A prompt's ids, the ids drawn after them, and their text.

    Attributes:
        ids_L: int64, prompt and answer so far.
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
    ) -> None:
        self.index = index
        self.ids_L = torch.tensor(prompt_ids, dtype=torch.long)
        self.finish_reason: FinishReason | None = None
        self._prompt_tokens = len(prompt_ids)
        self._params = params
        self._config = config
        self._most_ids = min(
            self._prompt_tokens + params.max_new_tokens, config.text_config.max_position_embeddings
        )
        self._generator = params.generator()
        self._detokenizer = Detokenizer(tokenizer)
        self._splitter = ThoughtSplitter()
        self._stop = StopMatcher(params.stop)
        self._thought: list[str] = []
        self._answer: list[str] = []

    def extend(self, logits_V: Tensor) -> list[Piece]:
        """Choose the next token, and finish where it is the last.

        Args:
            logits_V: the model's scores, float.

        Returns:
            The text that this settled.

        Raises:
            NonFiniteError: a score is NaN or infinite.
        """
        # An image token in an answer would ask the model for an image that is not there.
        token_id = sample(
            logits_V,
            self.ids_L,
            self._params,
            self._generator,
            never=self._config.image_token_id,
        )
        self.ids_L = torch.cat([self.ids_L, torch.tensor([token_id])])
        if token_id in self._config.eos_token_ids:
            return self.finish("stop")
        pieces = self._pieces(self._splitter.push(self._detokenizer.push(token_id)))
        if self._stop.stopped:
            self.finish_reason = "stop"
        elif len(self.ids_L) >= self._most_ids:
            pieces += self.finish("length")
        return pieces

    def finish(self, reason: FinishReason) -> list[Piece]:
        """End the answer and give out what was held back."""
        pieces = self._pieces(self._splitter.push(self._detokenizer.finish()))
        pieces += self._pieces(self._splitter.finish())
        pieces += self._added(self._stop.finish(), is_thought=False)
        self.finish_reason = "stop" if self._stop.stopped else reason
        return pieces

    def generation(self, *, image_encode_s: float, prefill_s: float, decode_s: float) -> Generation:
        """The finished answer.

        Raises:
            ValueError: it has not finished.
        """
        if self.finish_reason is None:
            raise ValueError("the answer is not finished")
        ids = self.ids_L[self._prompt_tokens :].tolist()
        return Generation(
            index=self.index,
            text="".join(self._answer),
            thought="".join(self._thought),
            ids=tuple(ids),
            finish_reason=self.finish_reason,
            timings=GenerationTimings(
                image_encode_s=image_encode_s,
                prefill_s=prefill_s,
                decode_s=decode_s,
                prompt_tokens=self._prompt_tokens,
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
        return [Piece(index=self.index, text=text, is_thought=is_thought)]
