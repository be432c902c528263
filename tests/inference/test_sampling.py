"""Sampling: parity with the logits processors of transformers, and what seeds promise."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.generation import logits_process as reference

from osler.errors import NonFiniteError, PromptError
from osler.inference.sampling import SamplingParams, guard, narrow, sample, token_logprob

VOCAB = 300


def random_logits(seed: int, size: int = VOCAB) -> NDArray[np.float32]:
    return 4 * np.random.default_rng(seed).standard_normal(size, np.float32)


def random_ids(seed: int, length: int = 120, high: int = 12) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(high, size=length)


def array(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def apply(processors: list[Any], ids_L: NDArray, logits_V: NDArray) -> NDArray[np.float64]:
    scores = torch.from_numpy(logits_V).double()[None]
    for processor in processors:
        scores = processor(torch.from_numpy(ids_L)[None], scores)
    return scores[0].numpy()


def narrowed(logits_V: NDArray, params: SamplingParams) -> NDArray[np.float64]:
    """All scores after `narrow`, those of dropped ids at minus infinity."""
    ids_K, scores_K = narrow(logits_V, params)
    assert np.array_equal(ids_K, np.unique(ids_K))
    scores_V = np.full(len(logits_V), -math.inf)
    scores_V[ids_K] = scores_K
    return scores_V


def assert_same_scores(ours_V: NDArray, reference_V: NDArray) -> None:
    np.testing.assert_allclose(ours_V, reference_V, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("settings", "warper"),
    [
        ({"top_k": 7}, reference.TopKLogitsWarper(7)),
        ({"top_k": VOCAB + 5}, reference.TopKLogitsWarper(VOCAB + 5)),
        ({"top_p": 0.9}, reference.TopPLogitsWarper(0.9)),
        ({"top_p": 1e-9}, reference.TopPLogitsWarper(1e-9)),
        ({"min_p": 0.05}, reference.MinPLogitsWarper(0.05)),
        ({"min_p": 1.0}, reference.MinPLogitsWarper(1.0)),
    ],
)
def test_each_filter_keeps_what_transformers_keeps(
    seed: int, settings: dict[str, Any], warper: Any
) -> None:
    logits_V = random_logits(seed)
    ours_V = narrowed(logits_V.astype(np.float64), SamplingParams(temperature=0.7, **settings))
    temperature = reference.TemperatureLogitsWarper(0.7)
    assert_same_scores(ours_V, apply([temperature, warper], random_ids(0), logits_V))


@pytest.mark.parametrize("seed", range(5))
def test_filters_together_run_in_the_order_of_transformers(seed: int) -> None:
    logits_V = random_logits(seed)
    params = SamplingParams(temperature=1.6, top_k=40, top_p=0.8, min_p=0.1)
    warpers = [
        reference.TemperatureLogitsWarper(1.6),
        reference.TopKLogitsWarper(40),
        reference.TopPLogitsWarper(0.8),
        reference.MinPLogitsWarper(0.1),
    ]
    ours_V = narrowed(logits_V.astype(np.float64), params)
    assert 1 < np.isfinite(ours_V).sum() < 40
    assert_same_scores(ours_V, apply(warpers, random_ids(0), logits_V))


@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0, 30.0])
@pytest.mark.parametrize("top_p", [0.5, 0.95, 0.999999])
def test_top_p_of_a_large_vocabulary(spread: float, top_p: float) -> None:
    """Flat and steep distributions: sorting only the head drops no other token."""
    logits_V = spread / 4 * random_logits(0, 20_000)
    params = SamplingParams(temperature=0.8, top_p=top_p)
    warpers = [reference.TemperatureLogitsWarper(0.8), reference.TopPLogitsWarper(top_p)]
    kept_V, theirs_V = narrowed(logits_V, params), apply(warpers, random_ids(0), logits_V)
    # Sums of probabilities in another order may part two tokens at the very edge.
    assert (np.isinf(kept_V) != np.isinf(theirs_V)).sum() <= 1


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    kept_V = narrowed(array(3.0, 1.0, 2.0, 2.0), SamplingParams(temperature=1.0, top_k=2))
    assert kept_V.tolist() == [3.0, -math.inf, 2.0, 2.0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty_is_that_of_transformers(seed: int, penalty: float) -> None:
    logits_V, ids_L = random_logits(seed), random_ids(seed)
    ours_V = guard(logits_V.astype(np.float64), ids_L, SamplingParams(repetition_penalty=penalty))
    processor = reference.RepetitionPenaltyLogitsProcessor(penalty)
    assert_same_scores(ours_V, apply([processor], ids_L, logits_V))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 3, 200])
def test_no_repeat_ngram_is_that_of_transformers(seed: int, size: int, length: int) -> None:
    logits_V, ids_L = random_logits(seed), random_ids(seed, length, high=3)
    ours_V = guard(logits_V.astype(np.float64), ids_L, SamplingParams(no_repeat_ngram_size=size))
    processor = reference.NoRepeatNGramLogitsProcessor(size)
    assert_same_scores(ours_V, apply([processor], ids_L, logits_V))


def test_no_repeat_ngram_bans_what_would_come_twice() -> None:
    ids_L = np.array([1, 2, 3, 1, 2])
    guarded_V = guard(np.zeros(5, np.float32), ids_L, SamplingParams(no_repeat_ngram_size=3))
    assert guarded_V.tolist() == [0, 0, 0, -math.inf, 0]


def test_guard_passes_over_ids_beyond_the_vocabulary() -> None:
    ids_L = np.array([2, 9, 2, 9, 2])
    params = SamplingParams(repetition_penalty=2.0, no_repeat_ngram_size=2)
    assert guard(np.ones(4, np.float32), ids_L, params).tolist() == [1, 1, 0.5, 1]


def test_guard_leaves_the_models_scores_alone() -> None:
    logits_V, ids_L = random_logits(0), random_ids(0)
    before = logits_V.copy()
    params = SamplingParams(repetition_penalty=2.0, no_repeat_ngram_size=1, temperature=1.0)
    sample(logits_V, ids_L, params, params.generator(), never=4)
    assert np.array_equal(logits_V, before)


def test_temperature_zero_takes_the_best_whatever_the_filters_and_seed() -> None:
    logits_V = random_logits(3)
    for seed in range(3):
        params = SamplingParams(top_k=50, top_p=0.5, min_p=0.1, seed=seed)
        assert sample(logits_V, random_ids(0), params, params.generator()) == logits_V.argmax()


def test_same_seed_draws_the_same_and_another_seed_draws_others() -> None:
    def draws(seed: int | None) -> list[int]:
        params = SamplingParams(temperature=1.0, seed=seed)
        generator = params.generator()
        return [sample(random_logits(i), random_ids(0), params, generator) for i in range(30)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_a_draw_uses_one_number_so_that_sequences_stay_in_step() -> None:
    params = SamplingParams(temperature=1.0, seed=0)
    wide, narrow_ = params.generator(), params.generator()
    sample(random_logits(0), random_ids(0), params, wide)
    sample(array(0, 0), random_ids(0), params, narrow_)
    assert wide.getstate() == narrow_.getstate() != params.generator().getstate()


def test_draws_follow_the_distribution() -> None:
    shares = np.array([0.1, 0.0, 0.2, 0.7])
    logits_V = np.log(np.maximum(shares, 1e-300)).astype(np.float32)
    params = SamplingParams(temperature=1.0, seed=1)
    generator, ids_L = params.generator(), np.array([0])
    counts = np.zeros(4)
    for _ in range(4000):
        counts[sample(logits_V, ids_L, params, generator)] += 1
    # 3 % is more than four standard deviations of the largest share.
    np.testing.assert_allclose(counts / 4000, shares, atol=0.03, rtol=0)
    assert counts[1] == 0


class Zero(random.Random):
    def random(self) -> float:
        return 0.0


def test_the_smallest_number_draws_no_dropped_token() -> None:
    params = SamplingParams(temperature=1.0, top_k=2)
    assert sample(array(0.0, 5.0, 5.0), np.array([0]), params, Zero()) == 1


def test_dropped_tokens_are_never_drawn() -> None:
    params = SamplingParams(temperature=2.0, top_k=3, seed=0)
    generator, logits_V = params.generator(), random_logits(1)
    drawn = {sample(logits_V, random_ids(0), params, generator) for _ in range(300)}
    assert drawn == set(np.argsort(logits_V)[-3:].tolist())


def test_never_is_not_chosen() -> None:
    logits_V = array(0.0, 50.0, 1.0)
    params, hot = SamplingParams(), SamplingParams(temperature=1.0, seed=0)
    assert sample(logits_V, np.array([0]), params, params.generator(), never=1) == 2
    assert sample(logits_V, np.array([0]), hot, hot.generator(), never=1) != 1
    assert sample(logits_V, np.array([0]), params, params.generator(), never=99) == 1


def test_only_what_is_allowed_is_chosen() -> None:
    logits_V, allowed_V = random_logits(2), np.zeros(VOCAB, bool)
    allowed_V[[3, 5, 9]] = True
    for params in (
        SamplingParams(),
        SamplingParams(temperature=1.0, seed=0),
        SamplingParams(temperature=1.0, seed=0, top_k=7, top_p=0.9),
        SamplingParams(no_repeat_ngram_size=1),
    ):
        drawn = sample(logits_V, random_ids(0), params, params.generator(), allowed_V=allowed_V)
        assert drawn in (3, 5, 9)


def test_the_guard_gives_way_where_it_would_ban_all_that_is_allowed() -> None:
    logits_V, allowed_V = random_logits(2), np.zeros(VOCAB, bool)
    allowed_V[7] = True
    params = SamplingParams(no_repeat_ngram_size=1)
    ids_L = np.array([7])
    assert sample(logits_V, ids_L, params, params.generator(), allowed_V=allowed_V) == 7


def test_logprobs_are_those_of_the_models_own_scores() -> None:
    logits_V = random_logits(4)
    expected_V = torch.from_numpy(logits_V).double().log_softmax(dim=0)
    best = expected_V.topk(3)
    report = token_logprob(logits_V, 11, 3)
    assert report.token_id == 11
    assert report.logprob == pytest.approx(float(expected_V[11]), rel=1e-6)
    assert [token for token, _ in report.top] == best.indices.tolist()
    assert [p for _, p in report.top] == pytest.approx(best.values.tolist(), rel=1e-6)
    assert token_logprob(logits_V, 11, 0).top == ()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_are_not_finite_are_refused(bad: float, temperature: float) -> None:
    logits_V = random_logits(0)
    logits_V[17] = bad
    params = SamplingParams(temperature=temperature)
    with pytest.raises(NonFiniteError, match=r"position 120 are not finite.*bfloat16"):
        sample(logits_V, random_ids(0), params, params.generator())


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
        {"no_repeat_ngram_size": -1},
        {"stop": ("",)},
        {"stop": "END"},
        {"seed": -1},
        {"seed": 2**63},
        {"logprobs": -1},
        {"logprobs": 21},
    ],
)
def test_a_value_out_of_range_is_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(PromptError, match=f"^{name} is .* must be ") as caught:
        SamplingParams(**settings)
    assert "\n" not in str(caught.value)


def test_a_schema_and_an_expression_exclude_each_other() -> None:
    with pytest.raises(PromptError, match="regex is 'a'; it must be absent where a schema"):
        SamplingParams(schema={}, regex="a")
