"""VQA-RAD's closed questions against baselines that see the question and not the image.

Shapes: N questions, W words, C answers.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from osler.evaluation.figure import ACCURACY, Figure, mean_of, share
from osler.evaluation.interview import Request, Said
from osler.evaluation.linear_probe import fit_probe
from osler.evaluation.own_words import says_yes
from osler.evaluation.text_metrics import token_f1
from osler.ingest.image_pack import PackedImage

MODEL = "answers in words"
WORDS = "question only: bag of words"
MAJORITY = "question only: majority of its type"

# Rarer answers, and rarer words, in the training questions teach nothing.
_SEEN_LEAST = 3
_SAME_ANSWER = 0.5


@dataclass(frozen=True, kw_only=True)
class ClosedQuestion:
    """One question whose answer is among few.

    Attributes:
        item: the image's record.
        text: the question.
        kind: the set's question type, as "PRES".
        answer: the right one, in lower case.
    """

    item: PackedImage
    text: str
    kind: str
    answer: str

    @property
    def is_yes_or_no(self) -> bool:
        """Whether the right answer is yes or no."""
        return self.answer in ("yes", "no")

    def is_right(self, said: str) -> bool:
        """Whether an answer begins with the right one of yes and no, or has most words in common.

        "Left" is right for "left side", "gray matter" is not for "white matter".
        """
        if self.is_yes_or_no:
            return says_yes(said) is (self.answer == "yes")
        return token_f1(said, self.answer) > _SAME_ANSWER


def closed_questions(items: Iterable[PackedImage]) -> list[ClosedQuestion]:
    """The closed questions of VQA-RAD's images; other sets have none."""
    return [
        ClosedQuestion(
            item=item,
            text=f"{' '.join(str(entry['question']).split()).rstrip('?')}?",
            kind=str(entry.get("question_type", "")),
            answer=_plain(str(entry["answer"])),
        )
        for item in items
        if item.set_name == "vqa_rad" and isinstance(item.text, list)
        for entry in item.text
        if entry.get("answer_type") == "CLOSED"
    ]


def closed_requests(questions: Iterable[ClosedQuestion]) -> Iterator[Request]:
    """What `closed_question_figures` needs to know."""
    for question in questions:
        yield question.item, question.text


def closed_question_figures(
    said: Said, learnt: Sequence[ClosedQuestion], asked: Sequence[ClosedQuestion]
) -> Iterator[Figure]:
    """Accuracy of the model and of the baselines, and how much better the model is, paired.

    Args:
        said: the model's answers to `closed_requests`.
        learnt: the training questions, to which the baselines are fitted.
        asked: the validation questions.
    """
    if not learnt or not asked:
        return
    answers = {
        MODEL: [said(question.item, question.text) for question in asked],
        WORDS: _by_words(learnt, asked),
        MAJORITY: _by_type(learnt, asked),
    }
    right = {
        by: np.array([q.is_right(text) for q, text in zip(asked, texts, strict=True)])
        for by, texts in answers.items()
    }
    yes_no_N = np.array([question.is_yes_or_no for question in asked])
    for name, chosen_N in (
        ("VQA-RAD, all closed questions", np.ones(len(asked), dtype=bool)),
        ("VQA-RAD, yes or no", yes_no_N),
        ("VQA-RAD, one or the other", ~yes_no_N),
    ):
        groups = [q.item.group for q, kept in zip(asked, chosen_N, strict=True) if kept]
        if not groups:
            continue
        for by, right_N in right.items():
            yield share(name, right_N[chosen_N], groups, by=by)
        for by in (WORDS, MAJORITY):
            gain_N = right[MODEL][chosen_N].astype(float) - right[by][chosen_N]
            target = 0.0 if chosen_N.all() else None
            against = f"{MODEL} against {by}"
            yield mean_of(name, ACCURACY, gain_N, groups, by=against, target=target, clearly=True)


def _by_words(learnt: Sequence[ClosedQuestion], asked: Sequence[ClosedQuestion]) -> list[str]:
    """Logistic regression on which words, and pairs of neighbouring words, a question has."""
    counts = Counter(question.answer for question in learnt)
    answers = [answer for answer, count in counts.items() if count >= _SEEN_LEAST]
    if len(answers) < 2:
        return _by_type(learnt, asked)
    kept = [question for question in learnt if question.answer in answers]
    seen = Counter(word for question in kept for word in _words(question))
    places = {
        word: place
        for place, word in enumerate(w for w, count in seen.items() if count >= _SEEN_LEAST)
    }
    truth_NC = np.array([[question.answer == answer for answer in answers] for question in kept])
    groups = [question.item.group for question in kept]
    probe = fit_probe(_bags(kept, places), truth_NC, groups)
    told_NC = probe.probabilities(_bags(asked, places))
    return [answers[column] for column in told_NC.argmax(axis=1)]


def _by_type(learnt: Sequence[ClosedQuestion], asked: Sequence[ClosedQuestion]) -> list[str]:
    by_type: dict[str, Counter[str]] = {}
    for question in learnt:
        by_type.setdefault(question.kind, Counter())[question.answer] += 1
    overall = Counter(question.answer for question in learnt)
    return [by_type.get(q.kind, overall).most_common(1)[0][0] for q in asked]


def _bags(questions: Sequence[ClosedQuestion], places: dict[str, int]) -> NDArray[np.float32]:
    bags_NW = np.zeros((len(questions), len(places)), np.float32)
    for row, question in enumerate(questions):
        known = [places[word] for word in _words(question) if word in places]
        bags_NW[row, known] = 1.0
    return bags_NW


def _words(question: ClosedQuestion) -> set[str]:
    single = _plain(question.text).split()
    pairs = [" ".join(pair) for pair in pairwise(single)]
    return {*single, *pairs, f"type {question.kind}"}


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
