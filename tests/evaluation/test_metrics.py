import numpy as np
import pytest

from osler.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    bootstrap_interval,
    roc_auc,
    wilson_interval,
)


def test_accuracy_counts_what_is_right() -> None:
    assert accuracy(["a", "b", "b", "a"], ["a", "b", "a", "a"]) == 0.75


def test_balanced_accuracy_is_the_mean_recall() -> None:
    # 3 of 4 of class 0, 1 of 2 of class 1.
    assert balanced_accuracy([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]) == pytest.approx(0.625)


def test_a_prediction_that_is_no_label_is_wrong() -> None:
    assert balanced_accuracy(["a", "a", "b"], ["a", "unscored", "b"]) == pytest.approx(0.75)


def test_the_area_under_the_curve_of_hand_counted_pairs() -> None:
    # Pairs (positive, negative): (3, 1), (3, 2) right; (2, 1) right; (2, 2) a tie.
    assert roc_auc([False, False, True, True], [1, 2, 3, 2]) == pytest.approx(3.5 / 4)
    assert roc_auc([True, False], [0.0, 1.0]) == 0.0
    assert roc_auc([True, False, False], [5, 5, 5]) == 0.5


def test_the_area_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="positive and negative"):
        roc_auc([True, True], [0.1, 0.2])


def test_wilson_interval_of_published_examples() -> None:
    # Newcombe, Statistics in Medicine 17:857-872, 1998, table I: 81/263, 15/148, 0/20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize(("successes", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_proportions_are_refused(successes: int, total: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(successes, total)


def test_bootstrap_interval_holds_the_value_and_repeats() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=200)
    said = np.where(rng.random(200) < 0.8, labels, 1 - labels)
    groups = list(range(200))
    low, high = bootstrap_interval(accuracy, labels, said, groups, resamples=300)
    assert low < accuracy(labels, said) < high
    assert (low, high) == bootstrap_interval(accuracy, labels, said, groups, resamples=300)
    # About the normal approximation: +-1.96 * sqrt(0.8 * 0.2 / 200) = 0.055.
    assert high - low == pytest.approx(0.11, abs=0.03)


def test_images_of_one_patient_widen_the_interval() -> None:
    labels = np.zeros(200, dtype=int)
    said = np.repeat(np.arange(20) % 4 == 0, 10).astype(int)
    apart = bootstrap_interval(accuracy, labels, said, list(range(200)), resamples=300)
    together = bootstrap_interval(
        accuracy, labels, said, [i // 10 for i in range(200)], resamples=300
    )
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="cannot compare"):
        accuracy([1, 2], [1])
    with pytest.raises(ValueError, match="cannot compare"):
        balanced_accuracy([], [])
    with pytest.raises(ValueError, match="2 groups for 3"):
        bootstrap_interval(accuracy, [1, 1, 1], [1, 1, 1], ["a", "b"])
