"""What the pictures of a report show."""

from osler.evaluation.encoder_figures import PROBE
from osler.evaluation.figure import ACCURACY, Figure
from osler.evaluation.plots import of_sets


def figure(target: float | None) -> Figure:
    return Figure(
        name="Films",
        metric=ACCURACY,
        value=0.5,
        low=0.4,
        high=0.6,
        images=9,
        by=PROBE,
        target=target,
    )


def test_a_figure_that_comes_again_leaves_the_target() -> None:
    assert of_sets([figure(0.95), figure(None)])["Films"][PROBE].target == 0.95
