"""Classification metrics under their published names, each with an interval."""

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Share of predictions that are right, 0 to 1.

    Args:
        labels: what is true, shape (N,).
        predictions: what was said, shape (N,); a value that is no label counts as wrong.

    Raises:
        ValueError: nothing to score, or lengths that differ.
    """
    truth, said = _same_length(labels, predictions)
    return float(np.mean(truth == said))


def balanced_accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Mean over the classes of the share of each class that was found, 0 to 1.

    Args:
        labels: what is true, shape (N,).
        predictions: what was said, shape (N,); a value that is no label counts as wrong.

    Raises:
        ValueError: nothing to score, or lengths that differ.

    Source: Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010.

    >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
    0.5
    """
    truth, said = _same_length(labels, predictions)
    return float(np.mean([np.mean(said[truth == label] == label) for label in np.unique(truth)]))


def roc_auc(is_positive: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a positive case scores above a negative one, ties counting half.

    Args:
        is_positive: bool, shape (N,), with at least one case of each kind.
        scores: higher means more likely positive, shape (N,).

    Raises:
        ValueError: lengths that differ, or cases of one kind only.

    Source: Hanley and McNeil, Radiology 143:29-36, 1982.

    >>> roc_auc([False, True, True], [0.1, 0.1, 0.9])
    0.75
    """
    positive, score = _same_length(is_positive, scores)
    positive = positive.astype(bool)
    count = int(positive.sum())
    if count in (0, len(positive)):
        raise ValueError("the area under the curve needs positive and negative cases")
    _, group, sizes = np.unique(score, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(sizes) - (sizes - 1) / 2
    rank_sum = float(mean_ranks[group][positive].sum())
    return (rank_sum - count * (count + 1) / 2) / (count * (len(positive) - count))


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion.

    Args:
        successes: how many of `total`.
        total: at least 1.
        confidence: coverage, between 0 and 1.

    Raises:
        ValueError: no cases, or more successes than cases.

    Source: Wilson, J. Am. Stat. Assoc. 22:209-212, 1927.
    """
    if not 0 <= successes <= total or total == 0:
        raise ValueError(f"{successes} of {total} is no proportion")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / total
    center = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def bootstrap_interval(
    metric: Callable[[NDArray[np.generic], NDArray[np.generic]], float],
    labels: ArrayLike,
    predictions: ArrayLike,
    groups: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a metric, drawing whole groups (patients) with replacement.

    Images of one patient are alike; drawing them apart would make the interval too narrow.

    Args:
        metric: of labels and predictions, as `balanced_accuracy`.
        labels: what is true, shape (N,).
        predictions: what was said, shape (N,).
        groups: which patient, lesion or case each belongs to, length N.
        confidence: coverage, between 0 and 1.
        resamples: how many draws.
        seed: of the draws.

    Raises:
        ValueError: nothing to score, or lengths that differ.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    truth, said = _same_length(labels, predictions)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    if len(groups) != len(truth):
        raise ValueError(f"{len(groups)} groups for {len(truth)} labels")
    rows = [np.array(indices) for indices in members.values()]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        values.append(metric(truth[drawn], said[drawn]))
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _same_length(
    first: ArrayLike, second: ArrayLike
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape or one.ndim != 1 or one.size == 0:
        raise ValueError(f"cannot compare shapes {one.shape} and {other.shape}")
    return one, other
