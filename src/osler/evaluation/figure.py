"""One measured figure with its interval, and a table of them."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from osler.evaluation.metrics import balanced_accuracy, bootstrap_interval, wilson_interval

# No label is called so: an answer that cannot be parsed counts as wrong.
UNSCORED = "unscored"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured share.

    Attributes:
        name: what was measured, on which set.
        metric: the published name of the metric.
        value: 0 to 1.
        low: lower end of the 95 % interval.
        high: upper end of it.
        images: how many images it was measured on.
        chance: what guessing gives, where that means anything.
        unscored: answers that could not be parsed; they count as wrong.
    """

    name: str
    metric: str
    value: float
    low: float
    high: float
    images: int
    chance: float | None = None
    unscored: int = 0


def share(name: str, right: Iterable[bool]) -> Figure:
    """The share of cases that are right, with Wilson's interval."""
    cases = list(right)
    low, high = wilson_interval(sum(cases), len(cases))
    value = sum(cases) / len(cases)
    return Figure(name=name, metric="accuracy", value=value, low=low, high=high, images=len(cases))


def balanced(
    name: str,
    labels: Sequence[str],
    predictions: Sequence[str],
    groups: Sequence[Hashable],
    classes: int,
) -> Figure:
    """Balanced accuracy with an interval bootstrapped over groups.

    Args:
        name: what was measured.
        labels: what is true.
        predictions: what was said, or `UNSCORED`.
        groups: the patient, lesion or case of each.
        classes: how many classes there were to choose from.
    """
    low, high = bootstrap_interval(balanced_accuracy, labels, predictions, groups)
    return Figure(
        name=name,
        metric="balanced accuracy",
        value=balanced_accuracy(labels, predictions),
        low=low,
        high=high,
        images=len(labels),
        chance=1 / classes,
        unscored=sum(said == UNSCORED for said in predictions),
    )


def markdown_table(figures: Iterable[Figure]) -> str:
    """The figures as a Markdown table, in per cent."""
    lines = [
        "| What | Metric | Value | 95 % interval | Chance | Images | Unscored |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for figure in figures:
        chance = "" if figure.chance is None else f"{figure.chance:.1%}"
        lines.append(
            f"| {figure.name} | {figure.metric} | {figure.value:.1%} | "
            f"{figure.low:.1%} to {figure.high:.1%} | {chance} | {figure.images:,} | "
            f"{figure.unscored} |"
        )
    return "\n".join(lines)
