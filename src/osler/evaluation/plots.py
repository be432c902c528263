"""Pictures of a report: what the encoder tells apart, and what answers in words do beside it."""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from osler.errors import UnreadableFileError, UnsupportedError
from osler.evaluation.class_answers import ANSWERS
from osler.evaluation.encoder_figures import PROBE, ZERO_SHOT
from osler.evaluation.figure import ACCURACY, AUC, Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_COLORS = {PROBE: "#1f5f8b", ZERO_SHOT: "#e08e2b", ANSWERS: "#3b8a4a"}


def draw_report(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Draw a report's figures, set by set, with their intervals, targets and chance.

    Args:
        figures: all of a report.
        folder: created where it is not there; gets `auc.png` and `accuracy.png`.

    Raises:
        UnsupportedError: matplotlib is not installed.
        UnreadableFileError: the folder cannot be written.
    """
    drawn = []
    for name, metric, says in (
        ("auc.png", AUC, "Area under the ROC curve"),
        ("accuracy.png", ACCURACY, "Accuracy"),
    ):
        chosen = [
            f for f in figures if f.metric == metric and f.by in _COLORS and ":" not in f.name
        ]
        if chosen:
            drawn.append(folder / name)
            _draw(chosen, says, drawn[-1])
    return drawn


def of_sets(figures: Iterable[Figure]) -> dict[str, dict[str, Figure]]:
    """Figures by what was measured, then by whom.

    Of several the first stays: the encoder's own come again, without targets, beside the answers.
    """
    found: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        found.setdefault(figure.name, {}).setdefault(figure.by, figure)
    return found


def _draw(figures: Iterable[Figure], says: str, path: Path) -> None:
    try:
        from matplotlib.figure import Figure as Canvas
    except ModuleNotFoundError as error:
        raise UnsupportedError("drawing needs pip install 'osler[plot]'") from error
    by_set = of_sets(figures)
    picture = Canvas(figsize=(9, 1.2 + 0.55 * len(by_set)), layout="constrained")
    axes = picture.subplots()
    shown = [by for by in _COLORS if any(by in of_set for of_set in by_set.values())]
    step = 0.8 / len(shown)
    for place, of_set in enumerate(by_set.values()):
        for order, by in enumerate(shown):
            if by not in of_set:
                continue
            figure = of_set[by]
            height = place + (order - (len(shown) - 1) / 2) * step
            axes.plot([figure.low, figure.high], [height] * 2, color=_COLORS[by], linewidth=2)
            label = by if place == 0 else None
            axes.plot(figure.value, height, "o", color=_COLORS[by], markersize=6, label=label)
        aims = {figure.target for figure in of_set.values() if figure.target is not None}
        for aim in aims:
            axes.plot([aim] * 2, [place - 0.42, place + 0.42], color="black", linewidth=1.5)
    axes.plot([], [], color="black", linewidth=1.5, label="target")
    axes.set_yticks(
        range(len(by_set)), [f"{n}\nn = {next(iter(by_set[n].values())).images:,}" for n in by_set]
    )
    axes.invert_yaxis()
    axes.set_xlabel(f"{says}, with 95 % intervals by patient or case")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.12), ncols=len(shown) + 1, frameon=False)
    _write(picture, path)


def _write(picture: "Picture", path: Path) -> None:
    """Write a picture whole or not at all."""
    content = io.BytesIO()
    picture.savefig(content, format="png", dpi=120)
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.getvalue())
        os.replace(partial, path)
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be written ({error.strerror})") from error
