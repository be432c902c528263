"""Which of a teacher's questions are taken."""

import json
import sys
from pathlib import Path

import pytest

from osler.errors import InputError
from osler.training.exercises import read_questions
from osler.training.overlap import KnownTexts
from osler.training.questions import (
    QuestionFilter,
    QuestionSet,
    Written,
    language_of,
    parse,
    save_questions,
    write_questions,
)

OPTIONS = ("The facial nerve", "The optic nerve", "The vagus nerve", "The ulnar nerve")
GOOD = Written(
    question="Which nerve moves the muscles of facial expression?", options=OPTIONS, answer="A"
)


def in_form(question: str, options: tuple[str, ...] = OPTIONS, answer: str = "A") -> str:
    lettered = [f"{x}) {option}" for x, option in zip("ABCD", options, strict=True)]
    return "\n".join([f"Question: {question}", *lettered, f"Answer: {answer}"])


def test_a_question_in_its_form() -> None:
    assert parse(in_form(GOOD.question)) == GOOD
    broken = GOOD.question.replace("muscles of ", "muscles of\n")
    assert parse(f"\n{in_form(broken)}\n\n") == GOOD
    assert parse(in_form(GOOD.question, answer="(A) because it does")) == GOOD


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Which nerve?",
        in_form(GOOD.question, answer="E"),
        in_form(GOOD.question).replace("C) ", "c "),
        in_form(GOOD.question).replace("Answer: A", ""),
        f"Here it is:\n{in_form(GOOD.question)}",
        f"{in_form(GOOD.question)}\n{in_form(GOOD.question)}",
    ],
)
def test_another_form(said: str) -> None:
    assert parse(said) is None


@pytest.mark.parametrize(
    ("question", "options", "refusal"),
    [
        (GOOD.question, OPTIONS, None),
        ("Which nerve?", OPTIONS, "length"),
        (f"{'Which ' * 130}nerve?", OPTIONS, "length"),
        (GOOD.question, (*OPTIONS[:3], "long " * 31), "length"),
        ("Name the nerve that moves the face.", OPTIONS, "form"),
        ("According to the text, which nerve moves the face?", OPTIONS, "form"),
        (GOOD.question, (*OPTIONS[:3], "the facial nerve."), "form"),
        (
            "Welcher Nerv bewegt die Muskeln des Gesichts beim Lachen?",
            ("Der Gesichtsnerv", "Der Sehnerv", "Der Vagusnerv", "Der Ellennerv"),
            "language",
        ),
    ],
)
def test_the_filter(question: str, options: tuple, refusal: str | None) -> None:
    written = Written(question=question, options=options, answer="A")
    assert QuestionFilter().refusal(written) == refusal


class Script:
    """A teacher that writes what it is told to, and answers by what it takes for right."""

    def __init__(self, written: dict[str, str], right: str, wrong_on_turn: int | None = None):
        self.written, self.right, self.wrong_on_turn = written, right, wrong_on_turn
        self.answered: list[str] = []

    def __call__(self, asked: str, seed: int) -> str:
        if "write one exam question" in asked:
            return next(said for text, said in self.written.items() if text in asked)
        self.answered.append(asked)
        if self.wrong_on_turn == len(self.answered):
            return "D" if f"D) {self.right}" not in asked else "A"
        return next(line[0] for line in asked.split("\n") if line.endswith(self.right))


def outcome(teacher: Script, benchmarks: KnownTexts | None = None) -> QuestionSet:
    *_, last = write_questions(list(teacher.written), teacher, benchmarks or KnownTexts())
    return last


def test_a_good_question_is_taken_and_asked_twice_in_two_orders() -> None:
    teacher = Script({"nerves": in_form(GOOD.question)}, right=OPTIONS[0])
    result = outcome(teacher)
    assert result.taken == [GOOD]
    assert not result.refused
    assert len(teacher.answered) == 2
    assert not any("nerves" in asked.replace("nerve ", "") for asked in teacher.answered)


@pytest.mark.parametrize("turn", [1, 2])
def test_one_wrong_answer_is_one_too_many(turn: int) -> None:
    result = outcome(Script({"nerves": in_form(GOOD.question)}, OPTIONS[0], wrong_on_turn=turn))
    assert result.taken == []
    assert result.refused == {"inconsistent": 1}


def test_every_refusal_is_counted_once() -> None:
    artery = "Which artery, of all that there are, feeds the left side of the heart?"
    said = {
        "text 1.": in_form(GOOD.question),
        "text 2.": in_form(GOOD.question.replace("Which nerve", "So which nerve")),
        "text 3.": in_form(
            "Which artery, of all that there are, feeds the left side of the heart?"
        ),
        "text 4.": "I cannot.",
        "text 5.": in_form("Which nerve?"),
    }
    known = KnownTexts([artery])
    result = outcome(Script(said, right=OPTIONS[0]), known)
    assert result.taken == [GOOD]
    assert result.refused == {"repeated": 1, "in a benchmark": 1, "form": 1, "length": 1}


def test_more_texts_than_are_asked_at_once() -> None:
    numbers = ["one", "two", "three", "four", "five"]
    said = {
        f"<{a} {b}>": in_form(f"Where in the {a} {b} does the nerve {b} {a} leave the {b} skull?")
        for a in numbers
        for b in numbers
    }
    steps = list(write_questions(list(said), Script(said, OPTIONS[0]), KnownTexts()))
    assert len(steps) == 2
    assert len(steps[-1].taken) + sum(steps[-1].refused.values()) == 25
    assert len(steps[-1].taken) > 20


def test_what_is_saved_can_be_asked(tmp_path: Path) -> None:
    save_questions(tmp_path / "set" / "questions.jsonl", [GOOD])
    (question,) = read_questions(tmp_path / "set" / "questions.jsonl")
    assert question.text.endswith(
        "A) The facial nerve\nB) The optic nerve\nC) The vagus nerve\nD) The ulnar nerve"
    )
    assert question.reward("A") == 1.0
    assert json.loads((tmp_path / "set" / "questions.jsonl").read_text())["answer"] == "A"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(InputError, match=r"osler\[train\]"):
        language_of("Which nerve?")
