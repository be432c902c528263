"""What an engine knows it does not read again, and nobody but its tenant profits from it."""

import random

from osler.inference.engine import Engine
from osler.inference.generate import complete
from osler.inference.sampling import SamplingParams
from osler.preprocess.tokenizer import Tokenizer
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


def test_a_second_question_skips_what_is_known(tokenizer: Tokenizer) -> None:
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=WIDE)
    record = words(random.Random(1), 1) * 300
    params = SamplingParams(max_new_tokens=3)
    first = answer(engine.submit(text_prompt(*record, 371), params))
    runner.calls.clear()
    second_prompt = text_prompt(*record, 372, 373)
    second = answer(engine.submit(second_prompt, params))
    assert first.cached_tokens == 0
    assert second.cached_tokens == 300
    assert fed(runner)[0] == [(300, 2)]
    assert second.ids == greedy_answer(second_prompt, params)


def test_a_second_question_about_an_image(tokenizer: Tokenizer) -> None:
    """The image lies within a page, behind which both go on differently."""
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=3)
    answer(engine.submit(prompt_of([[370, 371], 0.5, [372]]), params))
    second = prompt_of([[370, 371], 0.5, [373, 374]])
    got = answer(engine.submit(second, params))
    assert got.cached_tokens == 6
    assert got.ids == greedy_answer(second, params)
    assert runner.images_at_once == [1]
    other = prompt_of([[370, 371], 0.75, [373, 374]])
    got = answer(engine.submit(other, params))
    assert got.cached_tokens == 2
    assert got.ids == greedy_answer(other, params)
    assert runner.images_at_once == [1, 1]


def test_a_conversation_goes_on_from_its_answer(tokenizer: Tokenizer) -> None:
    engine = Engine(HashRunner(), tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=30)
    prompt = text_prompt(*words(random.Random(2), 50))
    first = answer(engine.submit(prompt, params))
    longer = text_prompt(*prompt.ids, *first.ids, 370, 371)
    second = answer(engine.submit(longer, params))
    assert second.cached_tokens == len(prompt.ids) + 29  # the last token was not read
    assert second.ids == greedy_answer(longer, params)


def test_the_same_prompt_again_reads_one_token(tokenizer: Tokenizer) -> None:
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=2)
    prompt = prompt_of([[370] * 64, 0.5, [371] * 60])
    first = answer(engine.submit(prompt, params))
    runner.calls.clear()
    again = answer(engine.submit(prompt, params))
    assert again.ids == first.ids
    assert again.cached_tokens == 127
    assert fed(runner)[0] == [(127, 1)]


def test_a_prompt_that_ends_with_an_image_reads_the_image_again(tokenizer: Tokenizer) -> None:
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=2)
    prompt = prompt_of([[370], 0.5])
    assert answer(engine.submit(prompt, params)).ids == greedy_answer(prompt, params)
    again = answer(engine.submit(prompt, params))
    assert again.cached_tokens == 1
    assert again.ids == greedy_answer(prompt, params)
    assert runner.images_at_once == [1]  # its embedding is known


def test_an_image_is_embedded_once_for_a_tenant(tokenizer: Tokenizer) -> None:
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=1)
    for tenant in ("a", "a", "b"):
        for begin in (370, 371):
            answer(engine.submit(prompt_of([[begin], 0.5, [372]]), params, tenant=tenant))
    assert runner.images_at_once == [1, 1]


def test_nothing_crosses_tenants(tokenizer: Tokenizer) -> None:
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=WIDE)
    params = SamplingParams(max_new_tokens=3)
    prompt = prompt_of([[370] * 100, 0.5, [371] * 100])
    mine = answer(engine.submit(prompt, params, tenant="a"))
    theirs = answer(engine.submit(prompt, params, tenant="b"))
    again = answer(engine.submit(prompt, params, tenant="b"))
    assert (mine.cached_tokens, theirs.cached_tokens) == (0, 0)
    assert again.cached_tokens == len(prompt.ids) - 1
    assert mine.ids == theirs.ids == again.ids
    assert runner.images_at_once == [1, 1]


def test_eight_at_once_read_their_common_beginning_once(tokenizer: Tokenizer) -> None:
    """The others wait until the first has read it, rather than read it as well."""
    runner = HashRunner()
    engine = Engine(runner, tokenizer, limits=WIDE)
    system = words(random.Random(3), 1) * 700
    prompts = [text_prompt(*system, n, n + 1) for n in range(370, 378)]
    params = SamplingParams(max_new_tokens=3)
    answers = complete(engine, prompts, params)
    assert [a.ids for a in answers] == [greedy_answer(p, params) for p in prompts]
    read = sum(len(ids) for call in runner.calls for _, ids, _ in call)
    assert read == 700 + 8 * (2 + 2)
    assert [a.cached_tokens for a in answers] == [0] + [700] * 7
