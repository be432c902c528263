"""Questions with answers to check."""

import json
from collections import Counter
from pathlib import Path

import pytest

from osler.errors import UnreadableFileError
from osler.preprocess.processor import Processor
from osler.testing.packs import one_of_each_class, packed_image
from osler.testing.tokenizers import tiny_medgemma_folder
from osler.training.exercises import Exercises, Question, pack_questions, read_questions


def chests(normal: int, sick: int) -> list:
    return [
        *[packed_image("cxr_kermany", "CR", "CHEST", {"finding": "normal"}) for _ in range(normal)],
        *[
            packed_image(
                "cxr_kermany", "CR", "CHEST", {"finding": "pneumonia", "pathogen": "virus"}
            )
            for _ in range(sick)
        ],
    ]


def test_pneumonia_is_asked_of_as_many_healthy_as_sick() -> None:
    asked = pack_questions([*chests(3, 9), *one_of_each_class()], "pneumonia")
    assert Counter(question.truth for question in asked) == {"yes": 4, "no": 4}
    everyone = pack_questions(chests(3, 9), "pneumonia", balanced=False)
    assert Counter(question.truth for question in everyone) == {"yes": 9, "no": 3}
    assert {question.text for question in asked} == {"Is there pneumonia?"}
    assert [q.truth for q in everyone] != sorted((q.truth for q in everyone), reverse=True)


def test_the_letter_is_that_of_what_the_image_shows() -> None:
    items = one_of_each_class()
    asked = pack_questions(items, "choice")
    assert len(asked) > 15
    for question in asked:
        assert question.truth in tuple("ABCD")
        assert f"{question.truth}) " in question.text
        assert question.reward(f"{question.truth})") == 1.0
        assert question.reward("Z)") == 0.0
    sick = pack_questions(chests(0, 5), "choice")
    for question in sick:
        option = question.text.split(f"{question.truth}) ")[1]
        assert option.startswith("viral pneumonia")
    assert len({question.truth for question in pack_questions(chests(0, 30), "choice")}) == 3


def test_only_closed_questions_of_vqa_rad_are_asked() -> None:
    asked = pack_questions(one_of_each_class(), "vqa_rad")
    assert {(question.text, question.truth) for question in asked} == {
        ("Is the heart enlarged?", "no")
    }


def test_the_same_seed_asks_the_same() -> None:
    items = one_of_each_class() * 3
    texts = [[q.text for q in pack_questions(items, "choice", seed=s)] for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_exercises_are_prompts_with_a_reward(tmp_path: Path) -> None:
    tiny_medgemma_folder(tmp_path)
    exercises = Exercises(
        pack_questions(chests(1, 1), "pneumonia"), Processor.from_folder(tmp_path)
    )
    assert len(exercises) == 2
    for exercise in exercises:
        assert exercise.prompt.pixels.shape == (1, 3, 56, 56)
        assert "Is there pneumonia?" in exercise.prompt.text
        assert exercise.reward(f"{exercise.truth}, that is so") == 1.0
    assert exercises[-1] is exercises[1]
    assert exercises[0:1] == [exercises[0]]
    with pytest.raises(IndexError):
        exercises[2]


def written(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_users_ask_in_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"later")
    options = {"A": "aspirin", "B": "rest"}
    choice = {"question": "What helps?", "check": "choice", "answer": "B", "options": options}
    first, second, third, fourth = read_questions(
        written(
            tmp_path,
            choice,
            {"question": "Sick?", "check": "yes_no", "answer": "no", "image": "a.png"},
            {"question": "List.", "check": "labels", "answer": ["mass", "edema"], "group": 7},
            {"question": "Say.", "check": "rouge_l", "answer": "no mass"},
        )
    )
    assert first.text == "What helps?\nA) aspirin\nB) rest"
    assert [first.reward("B) rest"), first.reward("A")] == [1.0, 0.0]
    assert second.image == tmp_path / "a.png"
    assert [second.reward("No."), second.reward("Yes.")] == [1.0, 0.0]
    assert (third.group, third.reward("edema, mass")) == ("7", 1.0)
    assert 0 < fourth.reward("a mass") < 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"check": "choice", "answer": "A"}, "no field 'question'"),
        ({"question": "?", "check": "taste", "answer": "A"}, "'check' is none of"),
        ({"question": "?", "check": "choice", "answer": "all"}, "letter of an option"),
        ({"question": "?", "check": "choice", "answer": "C", "options": {"A": "x"}}, "letter"),
        ({"question": "?", "check": "choice", "answer": "A", "options": {"A": 3}}, "'options'"),
        ({"question": "?", "check": "yes_no", "answer": "maybe"}, "neither"),
        ({"question": "?", "check": "labels", "answer": "mass"}, "no list of texts"),
        ({"question": "?", "check": "token_f1", "answer": " "}, "'answer' is no text"),
        ({"question": "?", "check": "token_f1", "answer": "x", "image": "b.png"}, "no image b.png"),
        (["question"], "not a JSON object"),
    ],
)
def test_a_bad_question_is_named_by_its_line(tmp_path: Path, row: object, reason: str) -> None:
    good = {"question": "Say.", "check": "rouge_l", "answer": "no mass"}
    with pytest.raises(UnreadableFileError, match=reason) as error:
        read_questions(written(tmp_path, good, row))
    assert "questions.jsonl: line 2" in str(error.value)


def test_a_question_shows_no_image_in_its_repr() -> None:
    assert "image" not in repr(Question(text="?", check="json", truth=(), image="secret.png"))
