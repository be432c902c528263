"""Answers many requests together over one runner.

A step reads a token of every answer in the making and a part of the prompts that are new, in one
pass over the weights. Who waits for an answer runs the steps, whichever thread that is, and all
the other waiting threads get theirs from them; a server starts a thread for it instead.

Shapes: N images, C channels, S image side, V vocabulary, R scores.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from osler.errors import OslerError, PromptError, QueueFullError
from osler.inference.cache import Cache
from osler.inference.continuation import Continuation
from osler.inference.images import images_of, stacked
from osler.inference.limits import Limits
from osler.inference.request import Request
from osler.inference.runner import Runner
from osler.inference.sampling import SamplingParams
from osler.inference.scheduler import Scheduler, Work
from osler.inference.sequence import Sequence as Job
from osler.inference.stats import EngineStats
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer

if TYPE_CHECKING:
    from osler.inference.constraint import Grammars


class Engine:
    """One model at work.

    Attributes:
        config: the model's sizes and special tokens.
        limits: what it takes on.
        context_tokens: the most ids of a prompt and its answer together.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: Tokenizer,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """Make room for keys and values.

        Args:
            runner: the model; no other engine may use it.
            tokenizer: the model's.
            limits: None for the usual ones.
            clock: seconds since some moment; deadlines, timings and what a guess costs go by it.

        Raises:
            MemoryLimitError: there is no room even for one request.
        """
        self.config = runner.config
        self.limits = limits or Limits()
        self._runner = runner
        self._tokenizer = tokenizer
        self._clock = clock
        self._cache = Cache(runner, self.limits)
        self.context_tokens = self._cache.context_tokens
        self._scheduler = Scheduler(self._cache, self.limits)
        self._counts = dict.fromkeys(("new_tokens", "drafted_tokens", "accepted_tokens"), 0)
        # Guards who steps: one thread at a time, and the others wait for its step to end.
        self._turn = threading.Condition()
        self._stepping = False
        self._thread: threading.Thread | None = None
        self._refusing = self._closed = False

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        tenant: str = "",
        deadline_s: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Request:
        """Hand in a request; work on it begins when somebody iterates one, or with `start`.

        Args:
            prompt: what to answer.
            params: how to choose tokens and when to stop.
            tenant: requests of one tenant share what they begin with; nothing else is shared.
            deadline_s: seconds until the answer ends as "timeout"; None for never.
            cancel: once set, the answer ends as "cancelled", as with `Request.cancel`.

        Raises:
            PromptError: the prompt is empty, too long, or does not fit the model, or the schema
                or expression cannot be used.
            QueueFullError: too many requests wait, or the machine has too little free memory.
        """
        hand_in = self.prepare(
            [prompt], params, tenant=tenant, deadline_s=deadline_s, cancel=cancel
        )
        return hand_in()[0]

    def prepare(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams,
        *,
        tenant: str = "",
        deadline_s: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Callable[[], list[Request]]:
        """Check several requests; what is returned hands them in, all or none.

        Args:
            prompts: what to answer; the events of each bear its index.
            params: as `submit` takes them, like the next ones.
            tenant: likewise.
            deadline_s: likewise.
            cancel: likewise.

        Returns:
            To be called once; it raises QueueFullError as `submit` does.

        Raises:
            PromptError: as `submit`.
        """
        jobs = [
            self._job(index, prompt, params, tenant, deadline_s, cancel or threading.Event())
            for index, prompt in enumerate(prompts)
        ]

        def hand_in() -> list[Request]:
            free_bytes = self._runner.free_bytes()
            if free_bytes < self.limits.reserve_bytes:
                raise QueueFullError(
                    f"the machine has {free_bytes >> 20} MB of free memory, less than the"
                    f" {self.limits.reserve_bytes >> 20} MB kept in reserve; try again later"
                )
            with self._turn:
                if self._refusing:
                    raise QueueFullError("the engine takes no more requests")
                for job in jobs:
                    job.hand_in()
                self._scheduler.queue.put(jobs)
                self._turn.notify_all()
            return [job.request for job in jobs]

        return hand_in

    def start(self) -> None:
        """Run the steps in a thread of their own, from now on."""
        with self._turn:
            self._thread = threading.Thread(target=self._run, name="osler engine", daemon=True)
            self._thread.start()

    def refuse(self) -> None:
        """Take no more requests; those that were handed in are answered."""
        with self._turn:
            self._refusing = True

    def close(self) -> None:
        """End everything as cancelled, and take nothing more."""
        with self._turn:
            self._refusing = self._closed = True
            self._turn.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        for job in [*self._scheduler.running, *self._scheduler.queue.waiting()]:
            job.request.cancel()
        self._wait(lambda: not self._scheduler.has_work)

    def stats(self) -> EngineStats:
        """What it does now, and has done."""
        pool = self._cache.global_pool
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.queue),
            pages_used=pool.in_use,
            pages_kept=pool.available - pool.free,
            pages_total=pool.total,
            prompt_tokens=self._cache.prompt_tokens,
            cached_tokens=self._cache.cached_tokens,
            preemptions=self._scheduler.preemptions,
            **self._counts,
        )

    def step(self) -> None:
        """Do the next piece of work, if there is any; by one thread at a time."""
        try:
            self._step()
        except BaseException as error:
            self._scheduler.fail(error)
            self._cache.forget()  # pages may be half written
            raise

    def _step(self) -> None:
        scheduler = self._scheduler
        scheduler.sweep()
        scheduler.admit()
        if images := scheduler.images_to_embed():
            start = self._clock()
            soft_NTD = self._runner.embed_images(stacked(images))
            scheduler.embedded(images, soft_NTD, self._clock() - start)
            scheduler.sweep()
        works = scheduler.plan()
        if not works:
            return
        start = self._clock()
        logits_RV = self._runner.forward([work.chunk() for work in works])
        seconds = self._clock() - start
        if all(work.sequence.decodes for work in works):
            scheduler.cost.observe(len(works), sum(work.tokens for work in works), seconds)
        ends = accumulate(work.scores for work in works)
        for work, end in zip(works, ends, strict=True):
            self._take(work, logits_RV[end - work.scores : end], start, len(works))

    def _take(self, work: Work, logits_RV: NDArray[np.float32], start: float, works: int) -> None:
        """Let a sequence go on with what the runner said."""
        job, scheduler = work.sequence, self._scheduler
        stage = "decode_s" if job.decodes else "prefill_s"
        job.read = work.end
        if work.scores and not (reason := job.reason_to_end()):
            try:
                self._extend(work, logits_RV, works)
            except OslerError as error:  # of this request alone
                scheduler.leave(job)
                job.fail(error)
                return
        self._cache.note(job, tail=stage == "prefill_s" and work.scores > 0)
        job.seconds[stage] += self._clock() - start
        if job.answer.finish_reason:
            scheduler.leave(job)
            job.finish(job.answer.finish_reason)
        elif work.scores and reason:
            scheduler.leave(job)
            job.finish(reason)

    def _extend(self, work: Work, logits_RV: NDArray[np.float32], works: int) -> None:
        """Choose tokens as long as they are those that were guessed."""
        job = work.sequence
        answer = job.answer
        job.soft.clear()
        right = 0
        for logits_V, draft in zip(logits_RV, [*work.drafts, None], strict=True):
            job.request.tell(*answer.extend(logits_V))
            self._counts["new_tokens"] += 1
            if answer.finish_reason or answer.ids[-1] != draft:
                break
            right += 1
        job.read += right
        if work.drafts:
            self._counts["drafted_tokens"] += len(work.drafts)
            self._counts["accepted_tokens"] += right
            if not work.forced and not answer.finish_reason:
                job.policy.learn(len(work.drafts), right, self._scheduler.cost.share, works)

    def _wait(self, done: Callable[[], bool]) -> None:
        """Return when something is done; step until then, or let another thread."""
        while True:
            with self._turn:
                while not done() and (self._stepping or self._thread is not None):
                    self._turn.wait()
                if done():
                    return
                self._stepping = True
            self._step_and_tell()

    def _run(self) -> None:
        try:
            while self._turn_of_thread():
                self._step_and_tell()
        finally:
            with self._turn:
                self._thread = None
                self._turn.notify_all()

    def _turn_of_thread(self) -> bool:
        """Wait for work; False where there will be none."""
        with self._turn:
            while not self._closed and (self._stepping or not self._scheduler.has_work):
                self._turn.wait()
            self._stepping = not self._closed
            return self._stepping

    def _step_and_tell(self) -> None:
        try:
            # Those whom an error concerns have been told, and the others go on.
            with suppress(Exception):
                self.step()
        finally:
            with self._turn:
                self._stepping = False
                self._scheduler.sweep()  # whose turn it is next may come late, or never
                self._turn.notify_all()

    def _settle(self) -> None:
        """Free what a cancelled request holds; where a step is under way, that does it."""
        with self._turn:
            if not self._stepping:
                self._scheduler.sweep()
                self._turn.notify_all()

    def _job(
        self,
        index: int,
        prompt: Prompt,
        params: SamplingParams,
        tenant: str,
        deadline_s: float | None,
        cancel: threading.Event,
    ) -> Job:
        """A request, if the model can take all of it."""
        images = images_of(prompt.ids, self._checked_pixels(prompt), self.config)
        constrained = params.schema is not None or params.regex is not None
        answer = Continuation(
            index,
            prompt.ids,
            config=self.config,
            tokenizer=self._tokenizer,
            params=params,
            context_tokens=self.context_tokens,
            constraint=self._grammars.constraint(params) if constrained else None,
        )
        return Job(
            Request(self._wait, self._settle, cancel),
            answer,
            images,
            tenant=tenant,
            deadline_s=deadline_s,
            draft_tokens=self.limits.draft_tokens,
            clock=self._clock,
        )

    @cached_property
    def _grammars(self) -> "Grammars":
        # Imported here: the library behind it takes a while, and few answers need it.
        from osler.inference.constraint import Grammars

        return Grammars(self._tokenizer, self.config)

    def _checked_pixels(self, prompt: Prompt) -> NDArray[np.float32]:
        """The prompt's images, if the model can take all of the prompt."""
        config, limit = self.config, self.context_tokens
        if not 0 < len(prompt.ids) < limit:
            raise PromptError(
                f"the prompt has {len(prompt.ids)} tokens; this model takes from 1 to {limit - 1}"
            )
        text_ids = [i for i in prompt.ids if i != config.image_token_id]
        if stray := [i for i in text_ids if not 0 <= i < config.text_config.vocab_size]:
            raise PromptError(f"token id {stray[0]} is not in the model's vocabulary")
        pixels_NCSS = np.asarray(prompt.pixels, dtype=np.float32)
        images, image_tokens = len(pixels_NCSS), len(prompt.ids) - len(text_ids)
        if image_tokens != images * config.mm_tokens_per_image:
            raise PromptError(
                f"the prompt has {image_tokens} image tokens for {images} images"
                f" of {config.mm_tokens_per_image} each"
            )
        if images:
            if config.vision_config is None:
                raise PromptError("the prompt has images, and this model reads text only")
            side = config.vision_config.image_size
            wanted = (config.vision_config.num_channels, side, side)
            if pixels_NCSS.shape[1:] != wanted:
                raise PromptError(
                    f"the prompt's images are {pixels_NCSS.shape[1:]}; the model takes {wanted}"
                )
        return pixels_NCSS
