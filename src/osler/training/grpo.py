"""Group-relative policy optimisation: the mathematics.

Several answers to one question are compared with one another, which needs no model of their value.

Shapes: P questions, G answers to each, T answer tokens of a batch, laid end to end.

Source: DeepSeekMath (arXiv 2402.03300), section 4.1, with the clip of PPO (arXiv 1707.06347).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Rewards that differ by less are the same, and their rounding errors teach nothing.
_SAME = 1e-6


def group_advantages(rewards_PG: Tensor) -> Tensor:
    """How much better than its group each answer is, in the group's standard deviations.

    Returns:
        (P, G); zero throughout a group whose answers are all equally good.

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])).tolist()
    [[1.0, -1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    centred_PG = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    spread_P1 = rewards_PG.std(dim=1, correction=0, keepdim=True)
    return torch.where(spread_P1 > _SAME, centred_PG / spread_P1.clamp(min=_SAME), 0.0)


@dataclass(frozen=True, kw_only=True)
class PolicyLoss:
    """What `policy_loss` gives.

    Attributes:
        loss: to be made small.
        divergence: estimate of the divergence from the start, in nats a token.
        clipped: share of the tokens whose ratio was clipped.
    """

    loss: Tensor
    divergence: Tensor
    clipped: Tensor


def policy_loss(
    logprobs_T: Tensor,
    sampled_T: Tensor,
    start_T: Tensor,
    advantages_T: Tensor,
    shares_T: Tensor,
    *,
    clip: float = 0.2,
    divergence_weight: float = 0.04,
) -> PolicyLoss:
    """Make good answers likelier and bad ones less so, in small steps and not far from the start.

    Args:
        logprobs_T: of the tokens under the weights in training.
        sampled_T: under the weights that drew them.
        start_T: under the weights that training began with.
        advantages_T: of each token's answer.
        shares_T: what each token counts; they sum to one. Every answer counts the same when they
            are one in the answers times the answer's tokens.
        clip: how far a token's ratio may move before more of it brings nothing.
        divergence_weight: of the divergence from the start.

    The divergence is estimated by r - log r - 1 with r = start / now: never negative, and of small
    variance (Schulman's k3).
    """
    ratio_T = (logprobs_T - sampled_T).exp()
    clipped_T = ratio_T.clamp(1 - clip, 1 + clip)
    gain_T = torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)
    back_T = start_T - logprobs_T
    divergence = (shares_T * (back_T.exp() - back_T - 1)).sum()
    return PolicyLoss(
        loss=divergence_weight * divergence - (shares_T * gain_T).sum(),
        divergence=divergence.detach(),
        clipped=(shares_T * (ratio_T != clipped_T)).sum().detach(),
    )
