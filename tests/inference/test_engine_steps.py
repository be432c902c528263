"""How the engine shares a step out: parts of prompts, images, answers, tenants."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from osler.inference.continuation import Generation
from osler.inference.engine import Engine
from osler.inference.limits import Limits
from osler.inference.runner import Chunk
from osler.inference.sampling import SamplingParams
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer
from osler.testing.dummy import dummy_config
from osler.testing.runners import HashRunner
from tests.inference.prompts import (
    WIDE,
    answer,
    fed,
    greedy_answer,
    prompt_of,
    text_prompt,
    words,
)


def test_long_prompts_are_read_in_parts_while_others_answer(tokenizer: Tokenizer) -> None:
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=Limits(cache_bytes=1_000_000, step_tokens=128))
    talker = engine.submit(text_prompt(370), SamplingParams(max_new_tokens=20))
    engine.step()
    prompt = text_prompt(*words(random.Random(4), 1) * 500)
    reader = engine.submit(prompt, SamplingParams(max_new_tokens=1))
    runner.calls.clear()
    for _ in range(4):
        engine.step()
    assert [len(call) for call in fed(runner)] == [2] * 4  # the talker says a token each time
    parts = [call[1] for call in fed(runner)]
    assert [sum(size for _, size in call) for call in fed(runner)] == [128, 128, 128, 500 - 381 + 1]
    assert parts[0] == (0, 127)
    assert answer(reader).ids == greedy_answer(prompt, SamplingParams(max_new_tokens=1))
    assert len(answer(talker).ids) == 20


def test_no_part_ends_inside_an_image(tokenizer: Tokenizer) -> None:
    runner = HashRunner(dummy_config(4096))
    engine = Engine(runner, tokenizer, limits=Limits(cache_bytes=1_000_000, step_tokens=66))
    prompt = prompt_of([[370] * 64, 0.1, 0.2, [371] * 200, *[0.3] * 20])
    params = SamplingParams(max_new_tokens=2)
    assert answer(engine.submit(prompt, params)).ids == greedy_answer(prompt, params)
    starts = [call[0][0] for call in fed(runner)]
    assert starts[1] == 64  # not 66
    assert all(runner.calls)


@pytest.mark.parametrize("tokens", [100, 400])
def test_an_image_longer_than_a_step(tokenizer: Tokenizer, tokens: int) -> None:
    config = dummy_config()
    object.__setattr__(config, "mm_tokens_per_image", tokens)
    runner = HashRunner(config)
    engine = Engine(runner, tokenizer, limits=Limits(cache_bytes=1_000_000, step_tokens=64))
    image = [config.image_token_id] * tokens
    prompt = Prompt(ids=[370, *image, 371, *image, 372], pixels=prompt_of([0.1, 0.2]).pixels)
    assert len(answer(engine.submit(prompt, SamplingParams(max_new_tokens=2))).ids) == 2
    assert fed(runner)[:4] == [[(0, 1)], [(1, tokens)], [(1 + tokens, 1)], [(2 + tokens, tokens)]]


@dataclass
class SlowEyes(HashRunner):
    """Notes when images are embedded and when tokens are said."""

    order: list[str] = field(default_factory=list)

    def embed_images(self, pixels_NCSS: NDArray[np.float32]) -> NDArray[np.float32]:
        self.order.append(f"{len(pixels_NCSS)} images")
        return super().embed_images(pixels_NCSS)

    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        self.order.append("step")
        return super().forward(chunks)


def test_images_do_not_silence_those_who_answer(tokenizer: Tokenizer) -> None:
    runner = SlowEyes()
    engine = Engine(runner, tokenizer, limits=WIDE)
    talker = engine.submit(text_prompt(370), SamplingParams(max_new_tokens=20))
    engine.step()
    engine.submit(prompt_of([0.1, 0.2, 0.3, [371]]), SamplingParams(max_new_tokens=1))
    runner.order.clear()
    for _ in range(3):
        engine.step()
    assert runner.order == ["1 images", "step"] * 3
    assert len(answer(talker).ids) == 20


def test_tenants_take_turns(tokenizer: Tokenizer) -> None:
    engine = Engine(HashRunner(), tokenizer, limits=Limits(cache_bytes=1_000_000, max_running=1))
    order: list[str] = []
    params = SamplingParams(max_new_tokens=1)
    for tenant, count in (("a", 5), ("b", 2), ("c", 1)):
        for n in range(count):
            request = engine.submit(text_prompt(370 + n), params, tenant=tenant)
            request.tell = lambda *events, t=tenant: order.extend(  # type: ignore[method-assign]
                t for event in events if isinstance(event, Generation)
            )
    while engine.stats().running or engine.stats().waiting:
        engine.step()
    assert order == ["a", "b", "c", "a", "b", "a", "a", "a"]
