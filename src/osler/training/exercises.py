"""Questions that have answers to check: of the data pack's labels, or of a user's JSON lines."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from osler.errors import UnreadableFileError
from osler.evaluation.naming import FINDINGS, classes
from osler.evaluation.own_words import PNEUMONIA_QUESTION, says_yes
from osler.evaluation.prompts import zero_shot_label
from osler.ingest.image_pack import PackedImage
from osler.preprocess.processor import ImageSource, Processor
from osler.preprocess.sources import ImageFile
from osler.training import phrases
from osler.training.policy_batch import Exercise
from osler.training.rewards import (
    choice_reward,
    json_reward,
    label_reward,
    rouge_l,
    token_f1,
    yes_no_reward,
)
from osler.training.streams.shards import Row, ShardFile, all_rows

Check = Literal["choice", "yes_no", "labels", "token_f1", "rouge_l", "json"]
Lesson = Literal["pneumonia", "choice", "vqa_rad"]

_LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_KEPT_PROMPTS = 256
_CHOICES = 4


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and what an answer is checked against.

    Attributes:
        text: the question, with its options where there are such.
        check: which reward; see `rewards`.
        truth: a letter; "yes" or "no"; labels; a reference text; fields that JSON must have.
        image: what it is about, if anything.
        group: patient, case or the like, for intervals.
    """

    text: str
    check: Check
    truth: str | tuple[str, ...]
    image: ImageSource | None = field(default=None, repr=False)
    group: str = ""

    @property
    def reward(self) -> Callable[[str], float]:
        """What an answer is worth, 0 to 1."""
        return lambda answer: _CHECKS[self.check](answer, self.truth)


class Exercises(Sequence[Exercise]):
    """Questions as a model is given them; prompts are made when needed, the last few kept."""

    def __init__(self, questions: Sequence[Question], processor: Processor) -> None:
        self._count = len(questions)
        self._make = lru_cache(_KEPT_PROMPTS)(lambda index: _exercise(questions[index], processor))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._make(range(self._count)[index])


def pack_questions(
    items: Iterable[PackedImage], lesson: Lesson, *, seed: int = 0, balanced: bool = True
) -> list[Question]:
    """Ask about images of the data pack.

    Args:
        items: of any sets; those that a lesson does not ask about are left out.
        lesson: "pneumonia", yes or no, of chest radiographs; "choice", a lettered class of any set
            with classes; "vqa_rad", the set's own yes-or-no questions.
        seed: of options and their order.
        balanced: leave questions out until every answer is right as often as any other, so that
            answering without looking earns nothing; no fewer where the answer is a letter, whose
            place is random.

    Returns:
        Questions in a random order.
    """
    rng = random.Random(seed)
    asked = [question for item in items for question in _LESSONS[lesson](item, rng)]
    rng.shuffle(asked)
    if not balanced or lesson == "choice":
        return asked
    by_truth: dict[Any, list[Question]] = defaultdict(list)
    for question in asked:
        by_truth[question.truth].append(question)
    least = min(map(len, by_truth.values()), default=0)
    kept = [question for questions in by_truth.values() for question in questions[:least]]
    rng.shuffle(kept)
    return kept


def read_questions(path: Path) -> list[Question]:
    """Read a user's questions, one JSON object a line.

    `{"question": ..., "check": "choice", "answer": "B", "options": {"A": ..., "B": ...},
    "image": "relative/path.png"}`; `options` and `image` may be missing, `answer` is a list for
    "labels" and "json".

    Raises:
        UnreadableFileError: with the file and the line of what is wrong.
    """
    return [_read(row, path.parent) for row in all_rows([ShardFile(path=path)])]


def _pneumonia(item: PackedImage, rng: random.Random) -> Iterator[Question]:
    if item.set_name == "cxr_kermany":
        truth = "yes" if item.labels["finding"] == "pneumonia" else "no"
        yield _about(item, PNEUMONIA_QUESTION, "yes_no", truth)


def _choice(item: PackedImage, rng: random.Random) -> Iterator[Question]:
    names = {
        label: known[0]
        for label, known in FINDINGS.get(item.set_name, {}).items()
        if "/" not in label
    }
    right = zero_shot_label(item) if names else None
    if right is None:
        return
    if item.set_name == "cxr_kermany":
        names = {"normal": "normal", "bacteria": "bacterial pneumonia", "virus": "viral pneumonia"}
        right = classes(item)[-1]
    others = sorted(names.keys() - {right})
    options = [right, *rng.sample(others, min(len(others), _CHOICES - 1))]
    rng.shuffle(options)
    lettered = [f"{x}) {names[label]}" for x, label in zip(_LETTERS, options, strict=False)]
    text = f"{rng.choice(phrases.CHOICE)} Options: {' '.join(lettered)}"
    yield _about(item, text, "choice", _LETTERS[options.index(right)])


def _vqa_rad(item: PackedImage, rng: random.Random) -> Iterator[Question]:
    if item.set_name == "vqa_rad" and isinstance(item.text, list):
        for entry in item.text:
            said = says_yes(str(entry["answer"]))
            if said is not None:
                text = f"{entry['question'].strip().rstrip('?')}?"
                yield _about(item, text, "yes_no", "yes" if said else "no")


_LESSONS: dict[Lesson, Callable[[PackedImage, random.Random], Iterator[Question]]] = {
    "pneumonia": _pneumonia,
    "choice": _choice,
    "vqa_rad": _vqa_rad,
}
_CHECKS: dict[Check, Callable[[str, Any], float]] = {
    "choice": choice_reward,
    "yes_no": lambda answer, truth: yes_no_reward(answer, truth == "yes"),
    "labels": label_reward,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "json": json_reward,
}


def _about(item: PackedImage, text: str, check: Check, truth: str) -> Question:
    image = ImageFile(item.image_bytes, f"{item.key}.webp")
    return Question(text=text, check=check, truth=truth, image=image, group=item.group)


def _exercise(question: Question, processor: Processor) -> Exercise:
    parts: list[dict[str, Any]] = [{"type": "text", "text": question.text}]
    if question.image is not None:
        parts.insert(0, {"type": "image", "image": question.image})
    truth = question.truth if isinstance(question.truth, str) else ", ".join(question.truth)
    return Exercise(
        prompt=processor([{"role": "user", "content": parts}]),
        reward=question.reward,
        question=question.text,
        truth=truth,
        group=question.group,
    )


def _read(row: Row, folder: Path) -> Question:
    def wrong(reason: str) -> UnreadableFileError:
        return UnreadableFileError(f"{row.where}: {reason}")

    text, named = row.text("question"), row.text("check")
    if named not in get_args(Check):
        raise wrong(f"'check' is none of {', '.join(get_args(Check))}")
    check, truth = cast(Check, named), row.fields.get("answer")
    if check in ("labels", "json"):
        if not isinstance(truth, list) or not all(isinstance(part, str) for part in truth):
            raise wrong(f"'answer' is no list of texts, which {check!r} needs")
        truth = tuple(truth)
    elif not isinstance(truth, str) or not truth.strip():
        raise wrong("'answer' is no text")
    if check == "yes_no" and truth not in ("yes", "no"):
        raise wrong('\'answer\' is neither "yes" nor "no"')
    options = row.fields.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(o, str) for o in options.values()):
        raise wrong("'options' is no object of letters and texts")
    if check == "choice" and (truth not in _LETTERS or (options and truth not in options)):
        raise wrong("'answer' is not the letter of an option")
    lettered = [f"{letter}) {option}" for letter, option in options.items()]
    image = folder / row.text("image") if "image" in row.fields else None
    if image is not None and not image.is_file():
        raise wrong(f"no image {row.fields['image']} beside the file")
    return Question(
        text="\n".join([text, *lettered]),
        check=check,
        truth=truth,
        image=image,
        group=str(row.fields.get("group", row.where)),
    )
