"""An engine that says what it is told to, at the pace that it is told to."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

from osler.errors import OslerError
from osler.inference.continuation import (
    FinishReason,
    Generation,
    GenerationTimings,
    Piece,
)
from osler.inference.sampling import SamplingParams, TokenLogprob
from osler.inference.stats import EngineStats
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer

ANSWER = ("The lungs ", "are clear.")


@dataclass
class ScriptedEngine:
    """Answers every prompt alike.

    Attributes:
        context_tokens: what it says that it takes.
        answer: pieces of every answer.
        thought: pieces that come before.
        finish_reason: why answers end.
        error: raised behind the first piece.
        full: raised instead of taking a prompt on.
        pace: waited for before each piece; set, so that answers come at once.
        works: what was taken on so far.
    """

    tokenizer: Tokenizer
    context_tokens: int = 8192
    answer: Sequence[str] = ANSWER
    thought: Sequence[str] = ()
    finish_reason: FinishReason = "stop"
    error: OslerError | None = None
    full: OslerError | None = None
    pace: threading.Event = field(default_factory=threading.Event)
    works: list["ScriptedWork"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pace.set()

    def stats(self) -> EngineStats:
        numbers = dict.fromkeys((field.name for field in fields(EngineStats)), 0)
        return EngineStats(**numbers | {"running": len(self.works)})

    def reset(self) -> None:
        """As it was in the beginning."""
        vars(self).update(vars(ScriptedEngine(self.tokenizer)))

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        tenant: str = "",
        deadline_s: float | None = None,
    ) -> "ScriptedWork":
        if self.full is not None:
            raise self.full
        work = ScriptedWork(self, prompt, params, tenant, deadline_s)
        self.works.append(work)
        return work


@dataclass
class ScriptedWork:
    """One answer, and what it was asked for with."""

    engine: ScriptedEngine
    prompt: Prompt
    params: SamplingParams
    tenant: str
    deadline_s: float | None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.cancelled.set()

    def __iter__(self) -> Iterator[Piece | Generation]:
        engine, said = self.engine, 0
        ids: list[int] = []
        script = [(text, True) for text in engine.thought] + [(t, False) for t in engine.answer]
        for text, is_thought in script:
            while not self.cancelled.is_set() and not engine.pace.wait(0.01):
                pass
            if self.cancelled.is_set():
                break
            new = engine.tokenizer.encode(text)
            ids += new
            yield Piece(index=0, text=text, is_thought=is_thought, logprobs=self._logprobs(new))
            said += 1
            if engine.error is not None:
                raise engine.error
        ids.append(1)
        yield Generation(
            index=0,
            text="".join(text for text, is_thought in script[:said] if not is_thought),
            thought="".join(text for text, is_thought in script[:said] if is_thought),
            ids=tuple(ids),
            finish_reason="cancelled" if self.cancelled.is_set() else engine.finish_reason,
            timings=GenerationTimings(
                queue_s=0.0,
                image_encode_s=0.0,
                prefill_s=0.0,
                decode_s=0.0,
                prompt_tokens=len(self.prompt.ids),
                new_tokens=len(ids),
            ),
            cached_tokens=3,
            logprobs=self._logprobs(ids) or None,
        )

    def _logprobs(self, ids: Sequence[int]) -> tuple[TokenLogprob, ...]:
        if (top := self.params.logprobs) is None:
            return ()
        best = ((7, -0.5), (8, float("-inf")))
        return tuple(TokenLogprob(token_id, -0.5, best[:top]) for token_id in ids)
