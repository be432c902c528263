"""Classification metrics under their published names, each with an interval."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

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
    truth, score = _same_length(is_positive, scores)
    positive = truth.astype(bool)
    if positive.all() or not positive.any():
        raise ValueError("the area under the curve needs positive and negative cases")
    below = np.sort(score[~positive])
    # Negative cases below each positive one, and those that tie with it as well.
    wins = np.searchsorted(below, score[positive], "left").sum()
    wins_and_ties = np.searchsorted(below, score[positive], "right").sum()
    return float(wins + wins_and_ties) / (2 * len(below) * (len(score) - len(below)))


def macro_auc(truth_NC: NDArray[np.bool_], scores_NC: NDArray[np.floating]) -> float:
    """Mean over the classes of the area under the curve of each against the rest, 0 to 1.

    Args:
        truth_NC: what is true, shape (N, C); several classes of one case may be.
        scores_NC: higher means more likely, shape (N, C).

    Returns:
        The mean over those classes that some cases have and others have not; NaN without any.

    >>> truth = np.array([[True, False], [False, True], [False, True]])
    >>> macro_auc(truth, np.array([[0.9, 0.1], [0.2, 0.8], [0.95, 0.05]]))
    0.5
    """
    positives = truth_NC.sum(axis=0)
    told = [
        roc_auc(truth_NC[:, column], scores_NC[:, column])
        for column, count in enumerate(positives)
        if 0 < count < len(truth_NC)
    ]
    return float(np.mean(told)) if told else math.nan


def weighed_recall(
    labels: ArrayLike, predictions: ArrayLike, frequencies: Mapping[Any, float]
) -> float:
    """Accuracy as it would be where classes come at other frequencies, 0 to 1.

    Args:
        labels: what is true, shape (N,).
        predictions: what was said, shape (N,).
        frequencies: how often each class comes; those of classes that `labels` lacks are left out.

    Raises:
        ValueError: nothing to score, or lengths that differ.

    >>> weighed_recall(["a", "a", "b"], ["a", "b", "b"], {"a": 3, "b": 1})
    0.625
    """
    truth, said = _same_length(labels, predictions)
    present = np.unique(truth)
    weights = [frequencies[label.item()] for label in present]
    recalls = [np.mean(said[truth == label] == label) for label in present]
    return float(np.average(recalls, weights=weights))


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
    if len(groups) != len(truth):
        raise ValueError(f"{len(groups)} groups for {len(truth)} labels")
    return grouped_interval(
        lambda rows: metric(truth[rows], said[rows]),
        groups,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def grouped_interval(
    metric: Callable[[NDArray[np.int64]], float],
    groups: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """As `bootstrap_interval`, of whatever can be measured on some of the cases.

    Args:
        metric: of the indices of cases, some of them several times; a draw on which it is NaN is
            left out.
        groups: which patient, lesion or case each case belongs to; as many as there are cases.
        confidence: coverage, between 0 and 1.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        Both ends; NaN where no draw could be measured.
    """
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    rows = [np.array(indices) for indices in members.values()]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        value = metric(drawn)
        if not math.isnan(value):
            values.append(value)
    if not values:
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def grouped_mean_interval(
    scores_N: NDArray[np.float64],
    groups: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """As `grouped_interval`, of a mean, all draws at once.

    Args:
        scores_N: what the mean is of.
        groups: which patient, lesion or case each case belongs to.
        confidence: coverage, between 0 and 1.
        resamples: how many draws.
        seed: of the draws.
    """
    place: dict[Hashable, int] = {}
    group_N = [place.setdefault(group, len(place)) for group in groups]
    sums, sizes = np.bincount(group_N, scores_N), np.bincount(group_N)
    drawn = np.random.default_rng(seed).integers(len(place), size=(resamples, len(place)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _same_length(
    first: ArrayLike, second: ArrayLike
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape or one.ndim != 1 or one.size == 0:
        raise ValueError(f"cannot compare shapes {one.shape} and {other.shape}")
    return one, other
