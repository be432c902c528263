"""The figures of the proofs: areas, shares and losses, and how much one network's differ from
another's on the same cases.

A metric of two words is a difference ("AUC gain"); every interval is bootstrapped over patients,
lesions or cases, the same ones for both networks.

Shapes: N cases.
"""

import math
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from osler.evaluation.encoder_figures import Told
from osler.evaluation.figure import AUC, Figure, auc, mean_of, measured
from osler.evaluation.metrics import macro_auc

Losses = tuple[NDArray[np.float64], NDArray[np.float64]]


def area(told: Told, by: str, network: str) -> Figure:
    """The area under the curve of one set."""
    task = told.task
    return auc(task.title, task.truth_NC, told.probabilities[by], task.groups, by=network)


def area_gain(before: Told, after: Told, by: str, says: str) -> Figure:
    """How much larger the area of the second network is, on one set."""
    return mean_area_gain(before.task.title, [before], [after], by, says)


def mean_area_gain(
    name: str, before: Sequence[Told], after: Sequence[Told], by: str, says: str
) -> Figure:
    """The same, mean over sets, each of which counts alike."""
    groups = [(told.task.set_name, group) for told in before for group in told.task.groups]
    ends = np.cumsum([0, *(len(told.task.groups) for told in before)]).tolist()

    def difference(rows: NDArray[np.int64]) -> float:
        gains = []
        for (first, end), one, other in zip(pairwise(ends), before, after, strict=True):
            own = rows[(rows >= first) & (rows < end)] - first
            truth_NC = one.task.truth_NC[own]
            areas = [macro_auc(truth_NC, told.probabilities[by][own]) for told in (one, other)]
            gains.append(areas[1] - areas[0])
        told_apart = [gain for gain in gains if not math.isnan(gain)]
        return float(np.mean(told_apart)) if told_apart else math.nan

    return measured(name, f"{AUC} gain", difference, groups, by=says)


def gain(
    name: str,
    metric: str,
    before: Sequence[float],
    after: Sequence[float],
    groups: Sequence[Hashable],
    by: str,
) -> Figure:
    """How much more is right after than before, case by case."""
    change_N = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    return mean_of(name, f"{metric} gain", change_N, groups, by=by)


def loss(
    name: str, losses: Losses, groups: Sequence[Hashable], by: str, *, perplexity: bool = False
) -> Figure:
    """Mean loss of a token in nats, or what e to its power is."""
    sums_N, tokens_N = losses

    def mean(rows: NDArray[np.int64]) -> float:
        value = float(sums_N[rows].sum() / tokens_N[rows].sum())
        return math.exp(value) if perplexity else value

    return measured(name, "perplexity" if perplexity else "loss", mean, groups, by=by)


def loss_change(
    name: str, before: Losses, after: Losses, groups: Sequence[Hashable], by: str
) -> Figure:
    """How much higher the second loss is, over the same tokens."""
    difference_N, tokens_N = after[0] - before[0], before[1]
    return measured(
        name,
        "loss change",
        lambda rows: float(difference_N[rows].sum() / tokens_N[rows].sum()),
        groups,
        by=by,
    )
