"""One measured figure with its interval."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from osler.evaluation.metrics import (
    balanced_accuracy,
    grouped_interval,
    grouped_mean_interval,
    macro_auc,
    wilson_interval,
)

ACCURACY = "accuracy"
AUC = "AUC"
# No label is called so: an answer that cannot be parsed counts as wrong.
UNSCORED = "unscored"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured share, or the difference of two.

    Attributes:
        name: what was measured, on which set.
        metric: the published name of the metric.
        value: 0 to 1; of a difference -1 to 1; NaN where there was nothing to measure.
        low: lower end of the 95 % interval.
        high: upper end of it.
        images: how many images, or questions, it was measured on.
        by: who said what is scored, such as "linear probe"; "" where there is only one.
        chance: what guessing gives, where that means anything.
        unscored: answers that could not be parsed; they count as wrong.
        target: the least that was aimed at, if anything was.
        clearly: whether it is the lower end of the interval that must lie above the target.
    """

    name: str
    metric: str
    value: float
    low: float
    high: float
    images: int
    by: str = ""
    chance: float | None = None
    unscored: int = 0
    target: float | None = None
    clearly: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.low > self.target if self.clearly else self.value >= self.target

    def record(self) -> dict[str, Any]:
        """As JSON has it: without what does not apply, and null for what could not be measured."""
        values: dict[str, Any] = {
            "name": self.name,
            "metric": self.metric,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "images": self.images,
        }
        values = {key: None if value != value else value for key, value in values.items()}
        if self.by:
            values["by"] = self.by
        if self.chance is not None:
            values["chance"] = self.chance
        if self.unscored:
            values["unscored"] = self.unscored
        if self.target is not None:
            values |= {"target": self.target, "reached": self.reached}
        return values


def share(name: str, right: ArrayLike, groups: Sequence[Hashable], **more: Any) -> Figure:
    """The share of cases that are right, with an interval bootstrapped over groups.

    Where all cases are right, or none is, every draw is alike and tells nothing: the interval is
    then Wilson's, each group counted once.

    Args:
        name: what was measured.
        right: bool, (N,), at least one.
        groups: the patient, lesion or case of each.
        **more: other fields of the figure.
    """
    right_N = np.asarray(right, dtype=bool)
    figure = mean_of(name, ACCURACY, right_N, groups, **more)
    if 0 < figure.value < 1:
        return figure
    count = len(set(groups))
    low, high = wilson_interval(count * int(figure.value), count)
    return replace(figure, low=low, high=high)


def mean_of(
    name: str, metric: str, scores: ArrayLike, groups: Sequence[Hashable], **more: Any
) -> Figure:
    """The mean of a score of each case, or of how much higher one is than another's (paired).

    Args:
        name: what was measured.
        metric: of the score.
        scores: (N,), at least one.
        groups: the patient, lesion or case of each.
        **more: other fields of the figure.
    """
    score_N = np.asarray(scores, dtype=float)
    low, high = grouped_mean_interval(score_N, groups)
    return Figure(
        name=name,
        metric=metric,
        value=float(score_N.mean()),
        low=low,
        high=high,
        images=len(score_N),
        **more,
    )


def auc(
    name: str,
    truth_NC: NDArray[np.bool_],
    scores_NC: NDArray[np.float64],
    groups: Sequence[Hashable],
    **more: Any,
) -> Figure:
    """The area under the curve, mean over classes, with an interval bootstrapped over groups.

    Args:
        name: what was measured.
        truth_NC: what is true.
        scores_NC: higher means more likely.
        groups: the patient, lesion or case of each.
        **more: other fields of the figure.
    """

    def area(rows: NDArray[np.int64]) -> float:
        return macro_auc(truth_NC[rows], scores_NC[rows])

    return measured(name, AUC, area, groups, chance=0.5, **more)


def measured(
    name: str,
    metric: str,
    measure: Callable[[NDArray[np.int64]], float],
    groups: Sequence[Hashable],
    **more: Any,
) -> Figure:
    """Anything that is measured on some of the cases, with an interval bootstrapped over groups.

    Args:
        name: what was measured.
        metric: what `measure` gives.
        measure: of the indices of cases.
        groups: the patient, lesion or case of each.
        **more: other fields of the figure.
    """
    low, high = grouped_interval(measure, groups)
    return Figure(
        name=name,
        metric=metric,
        value=measure(np.arange(len(groups))),
        low=low,
        high=high,
        images=len(groups),
        **more,
    )


def balanced(
    name: str,
    labels: Sequence[str],
    predictions: Sequence[str],
    groups: Sequence[Hashable],
    classes: int,
    **more: Any,
) -> Figure:
    """Balanced accuracy with an interval bootstrapped over groups.

    Args:
        name: what was measured.
        labels: what is true.
        predictions: what was said, or `UNSCORED`.
        groups: the patient, lesion or case of each.
        classes: how many classes there were to choose from.
        **more: other fields of the figure.
    """
    # As numbers, which compare many times as fast as words.
    _, codes = np.unique([*labels, *predictions], return_inverse=True)
    truth_N, said_N = codes[: len(labels)], codes[len(labels) :]
    return measured(
        name,
        "balanced accuracy",
        lambda rows: balanced_accuracy(truth_N[rows], said_N[rows]),
        groups,
        chance=1 / classes,
        unscored=sum(said == UNSCORED for said in predictions),
        **more,
    )
