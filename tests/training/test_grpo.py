"""The mathematics of group-relative policy optimisation."""

import math

import pytest
import torch
from torch import Tensor

from osler.training.grpo import group_advantages, policy_loss

CLIP, WEIGHT = 0.2, 0.1


def test_advantages_are_standard_scores_of_the_group() -> None:
    rewards = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.5], [3.0, 1.0, 2.0, 5.0, 4.0]])
    found = group_advantages(rewards)
    for row, group in zip(found.tolist(), rewards.tolist(), strict=True):
        mean = sum(group) / 5
        spread = math.sqrt(sum((reward - mean) ** 2 for reward in group) / 5)
        assert row == pytest.approx([(reward - mean) / spread for reward in group], abs=1e-6)
    torch.testing.assert_close(group_advantages(rewards * 7 + 3), found)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3, 1e6])
def test_a_group_of_equals_teaches_nothing(reward: float) -> None:
    assert not group_advantages(torch.full((2, 7), reward)).any()


def answers() -> tuple[list[Tensor], list[Tensor], list[Tensor], list[float]]:
    """Three answers of 4, 1 and 6 tokens: log-probabilities now, when drawn, at the start."""
    generator = torch.Generator().manual_seed(0)
    lengths = (4, 1, 6)
    now, drawn, start = (
        [-torch.rand(length, generator=generator, dtype=torch.float64) * 3 for length in lengths]
        for _ in range(3)
    )
    return [one.requires_grad_() for one in now], drawn, start, [1.2, -0.7, -0.5]


def by_hand(
    now: list[Tensor], drawn: list[Tensor], start: list[Tensor], advantages: list[float]
) -> Tensor:
    """The objective as the paper writes it, token by token, with its sign turned."""
    wide = torch.ones((), dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for answer in range(3):
        of_answer = torch.zeros((), dtype=torch.float64)
        for token in range(len(now[answer])):
            probability = now[answer][token].exp()
            ratio = probability / drawn[answer][token].exp()
            gain = ratio * advantages[answer]
            if ratio > 1 + CLIP:
                gain = torch.min(gain, advantages[answer] * wide * (1 + CLIP))
            if ratio < 1 - CLIP:
                gain = torch.min(gain, advantages[answer] * wide * (1 - CLIP))
            r = start[answer][token].exp() / probability
            of_answer = of_answer + gain - WEIGHT * (r - r.log() - 1)
        total = total + of_answer / len(now[answer])
    return -total / 3


def ours(
    now: list[Tensor], drawn: list[Tensor], start: list[Tensor], advantages: list[float]
) -> Tensor:
    shares = [torch.full((len(one),), 1 / (3 * len(one)), dtype=torch.float64) for one in now]
    spread = [
        torch.full((len(one),), advantage, dtype=torch.float64)
        for one, advantage in zip(now, advantages, strict=True)
    ]
    return policy_loss(
        *map(torch.cat, (now, drawn, start, spread, shares)), clip=CLIP, divergence_weight=WEIGHT
    ).loss


def test_value_and_gradient_are_those_of_the_formula() -> None:
    now, drawn, start, advantages = answers()
    wanted = by_hand(now, drawn, start, advantages)
    found = ours(now, drawn, start, advantages)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    pairs = zip(torch.autograd.grad(found, now), torch.autograd.grad(wanted, now), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    ratios = torch.cat([a - b for a, b in zip(now, drawn, strict=True)]).exp()
    assert ((ratios > 1 + CLIP) | (ratios < 1 - CLIP)).any(), "nothing was clipped"
    assert ((ratios < 1 + CLIP) & (ratios > 1 - CLIP)).any(), "everything was clipped"


def test_at_the_start_the_gradient_is_the_advantage() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    same = logprobs.detach()
    advantages, shares = torch.tensor([1.0, 1.0, -1.0]), torch.tensor([0.25, 0.25, 0.5])
    found = policy_loss(logprobs, same, same, advantages, shares)
    found.loss.backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, -advantages * shares)
    assert found.divergence == 0
    assert found.clipped == 0


@pytest.mark.parametrize(
    ("moved", "advantage", "pushes"),
    [
        (0.5, 1.0, False),  # likelier already, and good: enough
        (0.5, -1.0, True),  # likelier, and bad
        (-0.5, 1.0, True),
        (-0.5, -1.0, False),
    ],
)
def test_what_has_moved_far_enough_is_left_alone(
    moved: float, advantage: float, pushes: bool
) -> None:
    drawn = torch.tensor([-1.0])
    logprobs = (drawn + moved).requires_grad_()
    found = policy_loss(
        logprobs, drawn, drawn, torch.tensor([advantage]), torch.ones(1), divergence_weight=0.0
    )
    found.loss.backward()
    assert logprobs.grad is not None
    assert bool(logprobs.grad.any()) == pushes
    assert found.clipped == 1


def test_the_divergence_estimate_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    now, start = (torch.randn(6, generator=generator).log_softmax(0) for _ in range(2))
    drawn = torch.multinomial(now.exp(), 200_000, replacement=True, generator=generator)
    shares = torch.full((len(drawn),), 1 / len(drawn))
    found = policy_loss(now[drawn], now[drawn], start[drawn], torch.zeros(()), shares)
    exact = (now.exp() * (now - start)).sum()
    torch.testing.assert_close(found.divergence, exact, rtol=0.02, atol=0)
