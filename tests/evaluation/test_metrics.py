import numpy as np
import pytest

from osler.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    bootstrap_interval,
    grouped_interval,
    grouped_mean_interval,
    macro_auc,
    roc_auc,
    weighed_recall,
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


def test_the_area_of_many_ties_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.random(60) < 0.3, rng.integers(5, size=60)
    pairs = [(p > n) + (p == n) / 2 for p in scores[truth] for n in scores[~truth]]
    assert roc_auc(truth, scores) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_classes_without_both_kinds_are_left_out_of_the_mean_area() -> None:
    truth = np.array([[True, False, True], [False, False, True], [True, False, True]])
    scores = np.array([[0.9, 0.5, 0.1], [0.5, 0.1, 0.2], [0.1, 0.9, 0.3]])
    assert macro_auc(truth, scores) == 0.5
    assert np.isnan(macro_auc(truth[:, 1:], scores[:, 1:]))


def test_recalls_are_weighed_by_the_frequencies_of_classes_that_are_there() -> None:
    labels, said = [0, 0, 1, 1, 1], [0, 1, 1, 1, 0]
    assert weighed_recall(labels, said, {0: 9, 1: 1, 2: 90}) == pytest.approx(0.5 * 0.9 + 0.2 / 3)


def test_draws_that_cannot_be_measured_are_left_out() -> None:
    def first_class(rows: np.ndarray) -> float:
        return 1.0 if (rows == 0).any() else float("nan")

    assert grouped_interval(first_class, ["a", "b"], resamples=50) == (1.0, 1.0)
    low, high = grouped_interval(lambda rows: float("nan"), ["a", "b"], resamples=5)
    assert np.isnan(low)
    assert np.isnan(high)


def test_the_interval_of_a_mean_is_that_of_any_measure() -> None:
    rng = np.random.default_rng(2)
    scores, groups = rng.random(120), [i // 3 for i in range(120)]
    quick = grouped_mean_interval(scores, groups, resamples=4000)
    slow = grouped_interval(lambda rows: float(scores[rows].mean()), groups, resamples=4000)
    assert quick == pytest.approx(slow, abs=0.004)
    # Draws of whole groups, not of cases.
    assert quick != pytest.approx(grouped_mean_interval(scores, range(120), resamples=4000))
