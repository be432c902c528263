"""Linear probes: logistic regression over what a model that rests makes of its inputs.

Shapes: N images (or texts), D embedding size, C classes.

Source: linear probing as in CLIP (arXiv 2103.00020), appendix A.3: L2-regularised logistic
regression by L-BFGS, its strength chosen by cross-validation.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FOLDS = 5
# Weight of half the squared norm against the mean loss over images, strongest first.
STRENGTHS = tuple(10.0 ** (half / 2) for half in range(2, -7, -1))

# A class that a part lacks would else decide alone how good the part's probe is.
_LEAST_PROBABILITY = 1e-3
_LEAST_DEVIATION = 1e-9
# About how much a probability of logistic regression changes with its logit; at most a quarter.
_CURVATURE = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbe:
    """A fitted probe.

    Attributes:
        weight_CD: float32.
        bias_C: float32.
        strength: of its regularisation.
        exclusive: whether each image is of one class.
    """

    weight_CD: Tensor
    bias_C: Tensor
    strength: float
    exclusive: bool

    def probabilities(self, inputs_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of each class (N, C); rows sum to 1 where classes exclude each other."""
        logits_NC = torch.from_numpy(inputs_ND).double() @ self.weight_CD.double().T
        return _probabilities(logits_NC + self.bias_C.double(), self.exclusive).numpy()


def fit(
    inputs_ND: Tensor, truth_NC: Tensor, strength: float, *, exclusive: bool = True
) -> tuple[Tensor, Tensor]:
    """Logistic regression, its solution exact.

    Args:
        inputs_ND: embeddings; each value is brought to deviation 1 first, and the answer brought
            back, so that the strength means the same for every encoder.
        truth_NC: 1 at the classes of each, else 0.
        strength: weight of half the squared norm against the mean loss.
        exclusive: whether each is of one class (softmax); else each class is learnt by itself.

    Returns:
        Weights (C, D) and biases (C,), float32.
    """
    x_ND = inputs_ND.double()
    mean_D, deviation_D = _mean_and_deviation(x_ND)
    (weight_CD, bias_C), *_ = _path(
        (x_ND - mean_D) / deviation_D, truth_NC, (strength,), exclusive, tolerance=1e-6
    )
    weight_CD = weight_CD / deviation_D
    return weight_CD.float(), (bias_C - weight_CD @ mean_D).float()


def fit_probe(
    inputs_ND: NDArray[np.float32],
    truth_NC: NDArray[np.bool_],
    groups: Sequence[Hashable],
    *,
    exclusive: bool = True,
    seed: int = 0,
) -> LinearProbe:
    """Fit a probe whose strength is that with the best left-out likelihood.

    Args:
        inputs_ND: what the model makes of the training cases.
        truth_NC: the classes of each.
        groups: patient, case or the like of each; no group is learnt from and left out at once.
        exclusive: see `fit`.
        seed: of the parts of the cross-validation.
    """
    inputs, truth = torch.from_numpy(inputs_ND), torch.from_numpy(truth_NC).double()
    fold_N = torch.from_numpy(grouped_folds(truth_NC, groups, seed))
    folds = fold_N.unique() if len(fold_N.unique()) > 1 else []  # nothing to leave out
    loss = dict.fromkeys(STRENGTHS, 0.0)
    for fold in folds:
        kept, left = fold_N != fold, fold_N == fold
        x_ND = inputs[kept]
        mean_D, deviation_D = _mean_and_deviation(x_ND)
        unseen_ND = (inputs[left] - mean_D) / deviation_D
        path = _path((x_ND - mean_D) / deviation_D, truth[kept], STRENGTHS, exclusive)
        for strength, (weight_CD, bias_C) in zip(STRENGTHS, path, strict=True):
            told_NC = _probabilities(unseen_ND @ weight_CD.T + bias_C, exclusive)
            loss[strength] += _surprise(told_NC, truth[left], exclusive)
    best = min(STRENGTHS, key=lambda strength: (loss[strength], -strength))
    weight_CD, bias_C = fit(inputs, truth, best, exclusive=exclusive)
    return LinearProbe(weight_CD=weight_CD, bias_C=bias_C, strength=best, exclusive=exclusive)


def grouped_folds(
    truth_NC: NDArray[np.bool_], groups: Sequence[Hashable], seed: int = 0
) -> NDArray[np.int64]:
    """Part cases into at most `FOLDS` folds of whole groups, each with its share of each class.

    Args:
        truth_NC: the classes of each case; a group counts by the first class of its first case.
        groups: of each case.
        seed: of the order in which groups are dealt out.

    Returns:
        The fold of each case, (N,).
    """
    class_of: dict[Hashable, int] = {}
    for group, row in zip(groups, truth_NC, strict=True):
        class_of.setdefault(group, int(row.argmax()))
    shuffled = list(class_of)
    np.random.default_rng(seed).shuffle(shuffled)
    shuffled.sort(key=class_of.__getitem__)  # a stable sort: within a class the order is random
    fold_of = {group: place % FOLDS for place, group in enumerate(shuffled)}
    return np.array([fold_of[group] for group in groups])


def _path(
    x_ND: Tensor,
    truth_NC: Tensor,
    strengths: Sequence[float],
    exclusive: bool,
    tolerance: float = 1e-4,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The solution at each strength, from the strongest on, each found from the one before.

    Turned to the principal axes and scaled along them, the objective curves about alike in all
    directions, and L-BFGS needs a tenth of the steps.
    """
    truth_NC = truth_NC.to(x_ND.dtype)
    variance_D, axes_DD = torch.linalg.eigh(x_ND.T @ x_ND / len(x_ND))
    turned_ND = x_ND @ axes_DD
    weight_CD = x_ND.new_zeros(truth_NC.shape[1], x_ND.shape[1])
    bias_C = x_ND.new_zeros(truth_NC.shape[1])
    for strength in strengths:
        scale_D = (_CURVATURE * variance_D.clamp(min=0) + strength).rsqrt()
        free_CD, bias_C = (weight_CD / scale_D).requires_grad_(), bias_C.requires_grad_()
        objective = partial(
            _objective, free_CD, bias_C, turned_ND * scale_D, truth_NC, scale_D, strength, exclusive
        )
        _descend([free_CD, bias_C], objective, tolerance)
        weight_CD, bias_C = free_CD.detach() * scale_D, bias_C.detach()
        yield weight_CD @ axes_DD.T, bias_C


def _objective(
    free_CD: Tensor,
    bias_C: Tensor,
    scaled_ND: Tensor,
    truth_NC: Tensor,
    scale_D: Tensor,
    strength: float,
    exclusive: bool,
) -> Tensor:
    logits_NC = scaled_ND @ free_CD.T + bias_C
    if exclusive:
        loss = F.cross_entropy(logits_NC, truth_NC)
    else:
        each_NC = F.binary_cross_entropy_with_logits(logits_NC, truth_NC, reduction="none")
        loss = each_NC.sum(dim=1).mean()
    return loss + strength / 2 * (free_CD * scale_D).square().sum()


def _descend(parameters: list[Tensor], objective: Callable[[], Tensor], tolerance: float) -> None:
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=500,
        tolerance_grad=tolerance,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss.item()

    optimizer.step(closure)


def _mean_and_deviation(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    return x_ND.mean(dim=0), x_ND.std(dim=0, correction=0).clamp(min=_LEAST_DEVIATION)


def _probabilities(logits_NC: Tensor, exclusive: bool) -> Tensor:
    return logits_NC.softmax(dim=1) if exclusive else logits_NC.sigmoid()


def _surprise(told_NC: Tensor, truth_NC: Tensor, exclusive: bool) -> float:
    """Sum over the cases of what the truth was held to be unlikely, in nats."""
    right_NC = torch.where(truth_NC > 0, told_NC, 1.0 if exclusive else 1.0 - told_NC)
    return -float(right_NC.clamp(min=_LEAST_PROBABILITY).log().sum())
