"""Sampling: parity with the logits processors of transformers, and what seeds promise."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as reference

from osler.errors import NonFiniteError, PromptError
from osler.inference.sampling import SamplingParams, guard, narrow, sample, token_logprob

VOCAB = 300


def random_logits(seed: int) -> Tensor:
    return 4 * torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed))


def random_ids(seed: int, length: int = 120, high: int = 12) -> Tensor:
    return torch.randint(high, (length,), generator=torch.Generator().manual_seed(seed))


def apply(processors: list[Any], ids_L: Tensor, logits_V: Tensor) -> Tensor:
    scores = logits_V.double()[None]
    for processor in processors:
        scores = processor(ids_L[None], scores)
    return scores[0]


def narrowed(logits_V: Tensor, params: SamplingParams) -> Tensor:
    """All scores after `narrow`, those of dropped ids at minus infinity."""
    ids_K, scores_K = narrow(logits_V, params)
    assert ids_K.equal(ids_K.unique())
    return torch.full((len(logits_V),), -math.inf, dtype=torch.float64).index_copy(
        0, ids_K, scores_K
    )


def assert_same_scores(ours_V: Tensor, reference_V: Tensor) -> None:
    assert torch.equal(ours_V.isinf(), reference_V.isinf())
    torch.testing.assert_close(ours_V, reference_V, rtol=1e-12, atol=0)


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
    ours_V = narrowed(logits_V.double(), SamplingParams(temperature=0.7, **settings))
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
    ours_V = narrowed(logits_V.double(), params)
    assert 1 < ours_V.isfinite().sum() < 40
    assert_same_scores(ours_V, apply(warpers, random_ids(0), logits_V))


@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0, 30.0])
@pytest.mark.parametrize("top_p", [0.5, 0.95, 0.999999])
def test_top_p_of_a_large_vocabulary(spread: float, top_p: float) -> None:
    """Flat and steep distributions: sorting only the head drops no other token."""
    logits_V = spread * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    params = SamplingParams(temperature=0.8, top_p=top_p)
    warpers = [reference.TemperatureLogitsWarper(0.8), reference.TopPLogitsWarper(top_p)]
    kept_V, theirs_V = narrowed(logits_V, params), apply(warpers, random_ids(0), logits_V)
    # Sums of probabilities in another order may part two tokens at the very edge.
    assert (kept_V.isinf() != theirs_V.isinf()).sum() <= 1


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    kept_V = narrowed(torch.tensor([3.0, 1.0, 2.0, 2.0]), SamplingParams(temperature=1.0, top_k=2))
    assert kept_V.tolist() == [3.0, -math.inf, 2.0, 2.0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty_is_that_of_transformers(seed: int, penalty: float) -> None:
    logits_V, ids_L = random_logits(seed), random_ids(seed)
    ours_V = guard(logits_V.double(), ids_L, SamplingParams(repetition_penalty=penalty))
    processor = reference.RepetitionPenaltyLogitsProcessor(penalty)
    assert_same_scores(ours_V, apply([processor], ids_L, logits_V))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 3, 200])
def test_no_repeat_ngram_is_that_of_transformers(seed: int, size: int, length: int) -> None:
    logits_V, ids_L = random_logits(seed), random_ids(seed, length, high=3)
    ours_V = guard(logits_V.double(), ids_L, SamplingParams(no_repeat_ngram_size=size))
    processor = reference.NoRepeatNGramLogitsProcessor(size)
    assert_same_scores(ours_V, apply([processor], ids_L, logits_V))


def test_no_repeat_ngram_bans_what_would_come_twice() -> None:
    ids_L = torch.tensor([1, 2, 3, 1, 2])
    guarded_V = guard(torch.zeros(5), ids_L, SamplingParams(no_repeat_ngram_size=3))
    assert guarded_V.tolist() == [0, 0, 0, -math.inf, 0]


def test_guard_passes_over_ids_beyond_the_vocabulary() -> None:
    ids_L = torch.tensor([2, 9, 2, 9, 2])
    params = SamplingParams(repetition_penalty=2.0, no_repeat_ngram_size=2)
    assert guard(torch.ones(4), ids_L, params).tolist() == [1, 1, 0.5, 1]


def test_guard_leaves_the_models_scores_alone() -> None:
    logits_V, ids_L = random_logits(0), random_ids(0)
    before = logits_V.clone()
    params = SamplingParams(repetition_penalty=2.0, no_repeat_ngram_size=1, temperature=1.0)
    sample(logits_V, ids_L, params, params.generator(), never=4)
    assert torch.equal(logits_V, before)


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
    sample(torch.zeros(2), random_ids(0), params, narrow_)
    assert torch.equal(wide.get_state(), narrow_.get_state())


def test_draws_follow_the_distribution() -> None:
    logits_V = torch.tensor([0.1, 0.0, 0.2, 0.7]).log().clamp(min=-1e4)
    params = SamplingParams(temperature=1.0, seed=1)
    generator, ids_L = params.generator(), torch.tensor([0])
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[sample(logits_V, ids_L, params, generator)] += 1
    # 3 % is more than four standard deviations of the largest share.
    torch.testing.assert_close(counts / 4000, torch.tensor([0.1, 0.0, 0.2, 0.7]), atol=0.03, rtol=0)
    assert counts[1] == 0


def test_the_smallest_number_draws_no_dropped_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.zeros(1, dtype=torch.float64))
    params = SamplingParams(temperature=1.0, top_k=2)
    logits_V = torch.tensor([0.0, 5.0, 5.0])
    assert sample(logits_V, torch.tensor([0]), params, params.generator()) == 1


def test_dropped_tokens_are_never_drawn() -> None:
    params = SamplingParams(temperature=2.0, top_k=3, seed=0)
    generator, logits_V = params.generator(), random_logits(1)
    drawn = {sample(logits_V, random_ids(0), params, generator) for _ in range(300)}
    assert drawn == set(logits_V.topk(3).indices.tolist())


def test_never_is_not_chosen() -> None:
    logits_V = torch.tensor([0.0, 50.0, 1.0])
    params, hot = SamplingParams(), SamplingParams(temperature=1.0, seed=0)
    assert sample(logits_V, torch.tensor([0]), params, params.generator(), never=1) == 2
    assert sample(logits_V, torch.tensor([0]), hot, hot.generator(), never=1) != 1
    assert sample(logits_V, torch.tensor([0]), params, params.generator(), never=99) == 1


def test_only_what_is_allowed_is_chosen() -> None:
    logits_V, allowed_V = random_logits(2), torch.zeros(VOCAB, dtype=torch.bool)
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
    logits_V, allowed_V = random_logits(2), torch.zeros(VOCAB, dtype=torch.bool)
    allowed_V[7] = True
    params = SamplingParams(no_repeat_ngram_size=1)
    ids_L = torch.tensor([7])
    assert sample(logits_V, ids_L, params, params.generator(), allowed_V=allowed_V) == 7


def test_logprobs_are_those_of_the_models_own_scores() -> None:
    logits_V = random_logits(4)
    expected_V = logits_V.double().log_softmax(dim=0)
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
