"""Guesses at the next tokens: where they come from, when they are made, what they save."""

from itertools import pairwise

import pytest

from osler.inference.engine import Engine
from osler.inference.generate import complete
from osler.inference.limits import Limits
from osler.inference.sampling import SamplingParams
from osler.inference.speculation import LONGEST_PAUSE, DraftCost, DraftPolicy, PromptLookup
from osler.preprocess.tokenizer import Tokenizer
from osler.testing.runners import ScriptedRunner
from tests.inference.prompts import text_prompt

RECORD = "The heart is normal. The lungs are clear: no effusion, no pneumothorax."


def test_the_longest_and_latest_match_is_taken() -> None:
    lookup = PromptLookup()
    ids = [1, 2, 3, 4, 5, 6, 70, 9, 4, 5, 6, 80, 9, 4, 5, 6]
    assert lookup.draft(ids, 2) == [80, 9]
    assert lookup.draft([*ids, 0, 1, 2, 3, 4, 5, 6], 3) == [70, 9, 4]


def test_nothing_is_guessed_where_nothing_came_before() -> None:
    lookup = PromptLookup()
    assert lookup.draft([1, 2], 3) == []
    assert lookup.draft([1, 2, 3, 4], 3) == []
    assert lookup.draft([1, 2, 3, 4, 5, 3], 3) == []
    assert lookup.draft([1, 2, 3, 4, 2, 3, 1, 2, 3], 3) == [4, 2, 3]


def test_repetition_is_guessed_to_go_on() -> None:
    assert PromptLookup().draft([7] * 8, 3) == [7]


def test_no_guess_that_does_not_pay() -> None:
    assert DraftPolicy(0).length(0.01, 1) == 0
    cheap, dear = (DraftPolicy(8).length(cost, 1) for cost in (0.02, 0.3))
    assert cheap > dear
    assert DraftPolicy(8).length(0.02, 16) < cheap


def test_wrong_guesses_end_in_longer_and_longer_pauses() -> None:
    policy, made = DraftPolicy(8), list[int]()
    for step in range(1000):
        if length := policy.length(0.2, 1):
            policy.learn(length, 0, 0.2, 1)
            made.append(step)
    gaps = [after - before for before, after in pairwise(made)]
    assert max(gaps) == LONGEST_PAUSE + 1
    assert len(made) < 40
    for _ in range(200):  # the text begins to copy
        if length := policy.length(0.2, 1):
            policy.learn(length, length, 0.2, 1)
    assert policy.length(0.2, 1) >= 4


def test_cost_follows_what_is_observed() -> None:
    cost = DraftCost()
    cost.observe(1, 7, 9.0)  # nothing to compare with yet
    before = cost.share
    for _ in range(100):
        cost.observe(1, 1, 1.0)
        cost.observe(1, 7, 1.6)
    assert cost.share == pytest.approx(0.1, abs=0.01)
    assert cost.share < before
    for _ in range(100):
        cost.observe(1, 7, 1000.0)
    assert cost.share <= 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_that_copies_takes_fewer_steps(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    monkeypatch.setattr(DraftCost, "observe", lambda *_: None)
    record = tokenizer.encode(RECORD)
    prompt = text_prompt(ScriptedRunner.MARK, *record)
    params = SamplingParams(max_new_tokens=200, temperature=temperature, seed=0, logprobs=1)
    generations, steps = [], []
    for draft_tokens in (0, 8):
        runner = ScriptedRunner(scripts=[record])
        limits = Limits(cache_bytes=1_000_000, draft_tokens=draft_tokens)
        engine = Engine(runner, tokenizer, limits=limits)
        generations += complete(engine, [prompt], params)
        steps.append(len(runner.calls))
        stats = engine.stats()
        assert (stats.accepted_tokens > 0) == (draft_tokens > 0)
        assert stats.new_tokens == len(record) + 1
    plain, guessed = generations
    assert plain.text == guessed.text == RECORD
    assert plain.ids == guessed.ids
    assert plain.logprobs == guessed.logprobs
    assert steps[0] == len(record) + 1
    assert steps[1] < steps[0] / 2


@pytest.mark.parametrize("most", [1, 2, 30, 31])
def test_guesses_keep_within_the_most_tokens(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(DraftCost, "observe", lambda *_: None)
    record = tokenizer.encode(RECORD)
    engine = Engine(
        ScriptedRunner(scripts=[record]), tokenizer, limits=Limits(cache_bytes=1_000_000)
    )
    params = SamplingParams(max_new_tokens=most)
    (generation,) = complete(engine, [text_prompt(ScriptedRunner.MARK, *record)], params)
    assert generation.ids == tuple(record[:most])
    assert generation.finish_reason == "length"
