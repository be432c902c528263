"""Prompts for engine tests, what a `HashRunner` says to them, and what engines leave behind."""

import random

import numpy as np

from osler.inference.continuation import Generation
from osler.inference.engine import Engine
from osler.inference.limits import Limits
from osler.inference.request import Request
from osler.inference.sampling import SamplingParams
from osler.preprocess.processor import Prompt
from osler.testing.dummy import dummy_config
from osler.testing.runners import HashRunner

CONFIG = dummy_config()
WIDE = Limits(cache_bytes=1_000_000)
IMAGE = [CONFIG.image_token_id] * CONFIG.mm_tokens_per_image


def text_prompt(*ids: int) -> Prompt:
    """Ids without images."""
    return Prompt(ids=list(ids), pixels=np.zeros((0, 3, 56, 56), np.float32))


def prompt_of(parts: list[list[int] | float]) -> Prompt:
    """Ids, and images of one shade each, in their order."""
    ids: list[int] = []
    shades: list[float] = []
    for part in parts:
        if isinstance(part, float):
            shades.append(part)
            ids += IMAGE
        else:
            ids += part
    pixels = np.zeros((len(shades), 3, 56, 56), np.float32)
    pixels += np.array(shades, np.float32)[:, None, None, None]
    return Prompt(ids=ids, pixels=pixels)


def words(source: random.Random, most: int) -> list[int]:
    """Random ids, at least one."""
    return [source.randrange(370, 410) for _ in range(source.randint(1, most))]


def greedy_answer(prompt: Prompt, params: SamplingParams) -> tuple[int, ...]:
    """What a `HashRunner` says, a token at a time."""
    runner, history, answer = HashRunner(), list[int](), list[int]()
    soft = iter(runner.embed_images(prompt.pixels)[:, :, 0].ravel().tolist())
    for token in prompt.ids:
        is_image = token == CONFIG.image_token_id
        history.append(-2 - int(1e6 * abs(next(soft))) if is_image else token)
    for _ in range(params.max_new_tokens):
        answer.append(int(runner.scores([*history, *answer]).argmax()))
    return tuple(answer)


def answer(request: Request) -> Generation:
    """Wait for the whole."""
    *_, last = request
    assert isinstance(last, Generation)
    return last


def assert_nothing_leaks(engine: Engine) -> None:
    cache = engine._cache
    for pool in (cache.global_pool, cache.local_pool):
        assert pool.in_use == 0
    while cache.tree.give_up_global():
        pass
    for pool in (cache.global_pool, cache.local_pool):
        assert pool.free == pool.total
    assert len(cache.tree) == 0


def fed(runner: HashRunner) -> list[list[tuple[int, int]]]:
    """(start, number of ids) of each chunk, for each call."""
    return [[(start, len(ids)) for start, ids, _ in call] for call in runner.calls]
