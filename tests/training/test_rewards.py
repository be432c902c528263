"""What an answer earns."""

import pytest

from osler.training.rewards import (
    choice_letter,
    choice_reward,
    json_reward,
    label_reward,
    length_guard,
    yes_no_reward,
)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(D)", "D"),
        ("**C**", "C"),
        ("C) viral pneumonia.", "C"),
        ("The answer is A", "A"),
        ("Answer: (A) because B-cells are few", "A"),
        ("The correct option is D.", "D"),
        ("A chest X-ray.", None),
        ("X-ray", None),
        ("A) or B)", None),
        ("A, no: the answer is B", None),
        ("", None),
        ("b", None),
    ],
)
def test_the_letter_that_is_named(answer: str, letter: str | None) -> None:
    assert choice_letter(answer) == letter


def test_naming_all_options_earns_nothing() -> None:
    assert choice_reward("B) mass", "B") == 1.0
    assert choice_reward("A) B) C) D)", "B") == 0.0
    assert choice_reward("no idea", "B") == 0.0


@pytest.mark.parametrize(
    ("answer", "is_yes", "reward"),
    [
        ("Yes, there is.", True, 1.0),
        ("no", False, 1.0),
        ("No.", True, 0.0),
        ("Perhaps yes.", True, 0.0),
        ("Perhaps yes.", False, 0.0),
        ("Nodule.", False, 0.0),
    ],
)
def test_yes_and_no(answer: str, is_yes: bool, reward: float) -> None:
    assert yes_no_reward(answer, is_yes) == reward


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("edema, effusion", 1.0),
        ("Effusion and edema.", 1.0),
        ("- Edema\n- Effusion\n", 1.0),
        ("edema", 2 / 3),
        ("edema, edema, edema", 2 / 3),
        ("none", 0.0),
        ("sandy edema; grand effusion", 0.0),
    ],
)
def test_labels(answer: str, reward: float) -> None:
    assert label_reward(answer, ["Edema", "effusion"]) == pytest.approx(reward)


def test_no_label_is_right_where_there_is_none() -> None:
    assert label_reward("No finding.", []) == 1.0
    assert label_reward("mass", []) == 0.0


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ('{"finding": "mass", "side": null}', 1.0),
        ('```json\n{"finding": 1, "side": 2, "more": 3}\n```', 1.0),
        ('{"finding": "mass"}', 0.0),
        ('["finding", "side"]', 0.0),
        ('{"finding": "mass", "side": ', 0.0),
        ('Here it is: {"finding": 1, "side": 2}', 0.0),
        ("[" * 100_000, 0.0),
    ],
)
def test_json(answer: str, reward: float) -> None:
    assert json_reward(answer, ("finding", "side")) == reward


def test_the_length_guard_falls_and_never_pays() -> None:
    losses = [length_guard(tokens, most=30, margin=10) for tokens in range(60)]
    assert losses == sorted(losses, reverse=True)
    assert losses[:21] == [0.0] * 21
    assert losses[25] == -0.5
    assert set(losses[30:]) == {-1.0}
