"""The engine's bookkeeping, over runners whose answers depend on every id in their pages."""

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic, sleep

import numpy as np
import pytest
from numpy.typing import NDArray

from osler.errors import MemoryLimitError, PromptError, QueueFullError
from osler.inference.continuation import Generation
from osler.inference.engine import Engine
from osler.inference.generate import complete
from osler.inference.limits import Limits
from osler.inference.request import Request
from osler.inference.runner import Chunk
from osler.inference.sampling import SamplingParams
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer
from osler.testing.runners import HashRunner
from tests.inference.prompts import (
    WIDE,
    answer,
    assert_nothing_leaks,
    greedy_answer,
    prompt_of,
    text_prompt,
    words,
)

# 1000 bytes a page: 17 global pages hold one context of 1024 ids and hardly more.
TIGHT = Limits(cache_bytes=32_000, step_tokens=64, max_running=6, image_bytes=3000)


def random_prompt(source: random.Random, beginnings: list[list[list[int] | float]]) -> Prompt:
    """One of a few beginnings, cut anywhere, and something new behind it."""
    parts = list(source.choice(beginnings)[: source.randint(1, 4)])
    return prompt_of([*parts, words(source, 30)])


@pytest.mark.parametrize("limits", [TIGHT, WIDE], ids=["tight", "wide"])
@pytest.mark.parametrize("seed", range(2))
def test_two_hundred_random_requests(tokenizer: Tokenizer, limits: Limits, seed: int) -> None:
    """Shared beginnings, images, cancels, pages that run out: every answer as if it were alone."""
    source = random.Random(seed)
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=limits)
    beginnings: list[list[list[int] | float]] = [
        [words(source, 200), round(source.random(), 3), words(source, 90), 0.25] for _ in range(4)
    ]
    asked: list[tuple[Prompt, SamplingParams, Request]] = []
    finished = 0
    while finished < 200:
        while len(asked) < 9 and finished + len(asked) < 200:
            prompt = random_prompt(source, beginnings)
            params = SamplingParams(max_new_tokens=source.randint(1, 40))
            tenant = source.choice("ab")
            asked.append((prompt, params, engine.submit(prompt, params, tenant=tenant)))
        engine.step()
        if source.random() < 0.05:
            source.choice(asked)[2].cancel()
        for entry in list(asked):
            prompt, params, request = entry
            while request.has_event():
                event = next(request)
                if isinstance(event, Generation):
                    expected = greedy_answer(prompt, params)
                    if event.finish_reason == "cancelled":
                        expected = expected[: len(event.ids)]
                    assert event.ids == expected
                    assert event.cached_tokens < len(prompt.ids)
                    asked.remove(entry)
                    finished += 1
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.cached_tokens > 0
    assert (stats.preemptions > 0) == (limits is TIGHT)
    assert_nothing_leaks(engine)


def test_many_threads_at_once(tokenizer: Tokenizer) -> None:
    """Whoever waits runs the steps; everyone gets an answer of their own."""
    source = random.Random(0)
    beginnings: list[list[list[int] | float]] = [[words(source, 100), 0.5, words(source, 50)]]
    prompts = [random_prompt(source, beginnings) for _ in range(32)]
    engine = Engine(HashRunner(), tokenizer, limits=TIGHT)
    params = SamplingParams(max_new_tokens=12)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda p: answer(engine.submit(p, params)), prompts))
    assert [a.ids for a in answers] == [greedy_answer(p, params) for p in prompts]
    assert_nothing_leaks(engine)


@dataclass
class HeldRunner(HashRunner):
    """Takes no step but while it is free."""

    free: threading.Event = field(default_factory=threading.Event)

    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        self.free.wait()
        return super().forward(chunks)


def test_a_thread_of_its_own(tokenizer: Tokenizer) -> None:
    runner = HeldRunner()
    runner.free.set()
    engine = Engine(runner, tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=12)
    engine.start()
    requests = [engine.submit(text_prompt(5, n), params) for n in range(370, 380)]
    for n, request in enumerate(requests, start=370):
        assert answer(request).ids == greedy_answer(text_prompt(5, n), params)
    runner.free.clear()
    unsaid = engine.submit(text_prompt(5), SamplingParams(max_new_tokens=900))
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not engine._closed:
        sleep(0.001)
    runner.free.set()
    closing.join()
    assert answer(unsaid).finish_reason == "cancelled"
    with pytest.raises(QueueFullError, match="takes no more"):
        engine.submit(text_prompt(5), params)
    assert_nothing_leaks(engine)


def test_an_engine_that_refuses_ends_what_it_has(tokenizer: Tokenizer) -> None:
    engine = Engine(HashRunner(), tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=4)
    request = engine.submit(text_prompt(5), params)
    engine.refuse()
    with pytest.raises(QueueFullError):
        engine.submit(text_prompt(6), params)
    assert len(answer(request).ids) == 4


def test_a_full_queue_refuses(tokenizer: Tokenizer) -> None:
    limits = Limits(cache_bytes=1_000_000, max_waiting=3)
    engine = Engine(HashRunner(), tokenizer, limits=limits)
    params = SamplingParams(max_new_tokens=1)
    requests = [engine.submit(text_prompt(370 + n), params) for n in range(3)]
    with pytest.raises(QueueFullError, match="3 requests are waiting"):
        engine.submit(text_prompt(370), params)
    with pytest.raises(QueueFullError):
        complete(engine, [text_prompt(370)] * 4, params)
    assert [len(answer(request).ids) for request in requests] == [1, 1, 1]
    assert len(answer(engine.submit(text_prompt(370), params)).ids) == 1


def test_too_many_waiting_pixels_are_refused(tokenizer: Tokenizer) -> None:
    image_bytes = 3 * 56 * 56 * 4
    limits = Limits(cache_bytes=1_000_000, waiting_bytes=2 * image_bytes)
    engine = Engine(HashRunner(), tokenizer, limits=limits)
    params = SamplingParams(max_new_tokens=1)
    engine.submit(prompt_of([[370], 0.1, 0.2]), params)
    with pytest.raises(QueueFullError, match="images of waiting requests"):
        engine.submit(prompt_of([[370], 0.1]), params)
    engine.submit(text_prompt(370), params)


def test_little_free_memory_refuses(tokenizer: Tokenizer) -> None:
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=WIDE)
    runner.memory_bytes = (1 << 28) - 1
    with pytest.raises(QueueFullError, match="255 MB of free memory"):
        engine.submit(text_prompt(370), SamplingParams())
    runner.memory_bytes = 1 << 28
    engine.submit(text_prompt(370), SamplingParams())


def test_a_prompt_longer_than_the_pages_is_refused(tokenizer: Tokenizer) -> None:
    engine = Engine(HashRunner(), tokenizer, limits=Limits(cache_bytes=14_000, step_tokens=64))
    assert engine.context_tokens < 1024
    with pytest.raises(PromptError, match="this model takes from 1 to"):
        engine.submit(text_prompt(*[370] * engine.context_tokens), SamplingParams())
    longest = text_prompt(*[370] * (engine.context_tokens - 5))
    got = answer(engine.submit(longest, SamplingParams(max_new_tokens=50)))
    assert (len(got.ids), got.finish_reason) == (5, "length")
    assert_nothing_leaks(engine)


def test_memory_that_holds_no_request_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(MemoryLimitError, match="MB at least"):
        Engine(HashRunner(), tokenizer, limits=Limits(cache_bytes=5_000))


def test_a_quarter_of_the_free_memory_is_taken(tokenizer: Tokenizer) -> None:
    runner = HashRunner(memory_bytes=400_000)
    Engine(runner, tokenizer)
    assert len(runner.global_pages) + len(runner.local_pages) == 100


def test_the_embeddings_of_images_are_bounded(tokenizer: Tokenizer) -> None:
    runner = HashRunner()
    one = runner.embed_images(np.zeros((1, 3, 56, 56), np.float32)).nbytes
    engine = Engine(runner, tokenizer, limits=Limits(cache_bytes=1_000_000, image_bytes=2 * one))
    runner.images_at_once.clear()
    params = SamplingParams(max_new_tokens=1)
    for begin, shade in enumerate((0.1, 0.2, 0.1, 0.3, 0.1, 0.2), start=370):
        answer(engine.submit(prompt_of([[begin], shade, [380]]), params))
    # 0.2 was not used for longest when 0.3 came.
    assert len(runner.images_at_once) == 4


@dataclass
class TimedRunner(HashRunner):
    """Takes a second a step, by a clock that nothing else moves."""

    seconds: float = 0.0

    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        self.seconds += 1
        return super().forward(chunks)


def test_deadlines_end_answers_and_waits(tokenizer: Tokenizer) -> None:
    limits = Limits(cache_bytes=1_000_000, max_running=1)
    runner = TimedRunner()
    engine = Engine(runner, tokenizer, limits=limits, clock=lambda: runner.seconds)
    params = SamplingParams(max_new_tokens=900)
    answering = engine.submit(text_prompt(370), params, deadline_s=20.0)
    waiting = engine.submit(text_prompt(371), params, deadline_s=0.0)
    first = answer(answering)
    assert first.finish_reason == "timeout"
    assert 0 < len(first.ids) < 900
    assert first.ids == greedy_answer(text_prompt(370), params)[: len(first.ids)]
    late = answer(waiting)
    assert (late.finish_reason, late.ids) == ("timeout", ())
    assert_nothing_leaks(engine)


def test_cancelling_one_leaves_the_others(tokenizer: Tokenizer) -> None:
    engine = Engine(HashRunner(), tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=10)
    kept = engine.submit(text_prompt(370), params)
    dropped = engine.submit(text_prompt(371), params)
    engine.step()
    dropped.cancel()
    assert answer(dropped).finish_reason == "cancelled"
    assert answer(kept).ids == greedy_answer(text_prompt(370), params)
    assert_nothing_leaks(engine)


@dataclass
class FailingRunner(HashRunner):
    """Fails in one call."""

    fail: bool = False

    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        if self.fail:
            self.fail = False
            raise MemoryError("no memory for this")
        return super().forward(chunks)


def test_a_failing_runner_fails_those_it_worked_for_and_no_others(tokenizer: Tokenizer) -> None:
    runner = FailingRunner()
    engine = Engine(runner, tokenizer, limits=Limits(cache_bytes=1_000_000, max_running=1))
    params = SamplingParams(max_new_tokens=5)
    running, waiting = (engine.submit(text_prompt(n), params) for n in (370, 371))
    engine.step()
    runner.fail = True
    with pytest.raises(MemoryError, match="no memory for this"):
        answer(running)
    assert answer(waiting).ids == greedy_answer(text_prompt(371), params)
    assert_nothing_leaks(engine)


def test_an_interrupt_reaches_whoever_runs_the_step(tokenizer: Tokenizer) -> None:
    class Interrupted(HashRunner):
        def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
            raise KeyboardInterrupt

    engine = Engine(Interrupted(), tokenizer, limits=WIDE)
    with pytest.raises(KeyboardInterrupt):
        complete(engine, [text_prompt(370)], SamplingParams())
    assert engine.stats().running == engine.stats().waiting == 0


def test_a_slow_reader_holds_nobody_up(tokenizer: Tokenizer) -> None:
    engine = Engine(HashRunner(), tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=50)
    slow = engine.submit(text_prompt(370), params)
    quick = engine.submit(text_prompt(371), params)
    assert len(answer(quick).ids) == 50
    assert len(answer(slow).ids) == 50


def test_a_waiting_thread_is_woken_by_another_that_steps(tokenizer: Tokenizer) -> None:
    """One thread waits while another is in a step that ends the first one's answer."""
    gate = threading.Event()

    @dataclass
    class Gated(HashRunner):
        entered: threading.Event = field(default_factory=threading.Event)

        def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
            self.entered.set()
            assert gate.wait(10)
            return super().forward(chunks)

    runner = Gated()
    engine = Engine(runner, tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=1)
    requests = [engine.submit(text_prompt(n), params) for n in (370, 371)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(answer, requests[0])
        assert runner.entered.wait(10)
        second = pool.submit(answer, requests[1])
        start = monotonic()
        while not second.running() and monotonic() < start + 10:
            sleep(0.001)
        gate.set()
        assert len(first.result(10).ids) == len(second.result(10).ids) == 1
    assert len(runner.calls) == 1
