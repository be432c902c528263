"""Scores of texts against each other."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osler.evaluation.text_metrics import rouge_l, set_f1, token_f1


# What rouge-score 0.1.2 (rougeL, no stemmer, F-measure) gives for them.
@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("No pleural effusion is seen.", "There is no effusion.", 0.4444444444444445),
        (
            "The heart is normal in size; lungs are clear.",
            "Lungs are clear. The heart size is normal.",
            0.47058823529411764,
        ),
        (
            "X-ray of the chest, 2 views",
            "Chest X-ray (2 views), PA and lateral",
            0.5333333333333333,
        ),
        ("", "a", 0.0),
        ("a b c d e f g", "g f e d c b a", 0.14285714285714285),
        ("Étude de café", "etude de cafe", 0.3333333333333333),
    ],
)
def test_rouge_l_is_that_of_its_authors(answer: str, reference: str, score: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(score, abs=1e-12)


@given(st.text("abc ", max_size=12), st.text("abc ", max_size=12))
def test_rouge_l_by_trying_all_subsequences(answer: str, reference: str) -> None:
    said, wanted = answer.split(), reference.split()
    longest = max(
        size
        for size in range(len(said) + 1)
        if size == 0 or set(combinations(said, size)) & set(combinations(wanted, size))
    )
    expected = 2 * longest / (len(said) + len(wanted)) if said and wanted else 0.0
    assert rouge_l(answer, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The lung!", "lung", 1.0),
        ("lung lung", "lung", 2 / 3),
        ("heart", "lung", 0.0),
        ("the", "an", 1.0),
        ("", "lung", 0.0),
    ],
)
def test_token_f1(answer: str, reference: str, score: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(score)


@pytest.mark.parametrize(
    ("predicted", "true", "score"),
    [("ab", "ab", 1.0), ("", "", 1.0), ("a", "", 0.0), ("", "a", 0.0), ("abcd", "a", 0.4)],
)
def test_set_f1(predicted: str, true: str, score: float) -> None:
    assert set_f1(predicted, true) == pytest.approx(score)
