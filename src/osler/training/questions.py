"""Questions that a teacher writes, and what is left of them: the synthetic set.

A text in; a question with four options out, if it has the right form and length, is in the right
language, is in no benchmark and not among those before, and if the teacher, asked twice without
the text and with the options in another order, chooses both times what it said was right.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from osler.errors import InputError
from osler.training.overlap import KnownTexts
from osler.training.rewards import choice_letter
from osler.training.run_log import write_whole

# Answers a question, by a seed; may be called in several threads.
Teacher = Callable[[str, int], str]

LETTERS = "ABCD"
_WRITE = """Read this text and write one exam question that can be answered without it.

{text}

Write the question, four options of which one is right, and the right letter, in this form:
Question: ...
A) ...
B) ...
C) ...
D) ...
Answer: ..."""
_ANSWER = "{question}\n{options}\nAnswer with the letter only."
_FORM = re.compile(
    r"\s*(?:\*\*)?Question:(?:\*\*)?\s*(?P<question>(?:(?!^A\)).)+?)\s*"
    r"^A\)\s*(?P<A>[^\n]+)\s*^B\)\s*(?P<B>[^\n]+)\s*^C\)\s*(?P<C>[^\n]+)\s*^D\)\s*(?P<D>[^\n]+)\s*"
    r"^Answer:\s*\(?(?P<answer>[ABCD])\b[^\n]*\s*",
    re.DOTALL | re.MULTILINE,
)
# Of what leans on a text that is not there any more.
_LEANS = re.compile(
    r"\b(?:the|this|above) (?:text|passage|article|study|document|author|excerpt)\b|\bmentioned\b",
    re.IGNORECASE,
)
_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Written:
    """A question as its teacher wrote it; `answer` is a letter."""

    question: str
    options: tuple[str, str, str, str]
    answer: str


@dataclass(frozen=True, kw_only=True)
class QuestionFilter:
    """What is asked of a question.

    Attributes:
        least_words: of the question.
        most_words: likewise.
        most_option_words: of each option.
        language: ISO 639-1 code.
    """

    least_words: int = 5
    most_words: int = 120
    most_option_words: int = 30
    language: str = "en"

    def refusal(self, written: Written) -> str | None:
        """Why a question is not taken; None where it may be."""
        words = len(written.question.split())
        if not self.least_words <= words <= self.most_words:
            return "length"
        if any(len(option.split()) > self.most_option_words for option in written.options):
            return "length"
        if "?" not in written.question or _LEANS.search(written.question):
            return "form"
        if len({option.lower().strip(" .") for option in written.options}) < len(LETTERS):
            return "form"
        if language_of(f"{written.question} {' '.join(written.options)}") != self.language:
            return "language"
        return None


@dataclass(kw_only=True)
class QuestionSet:
    """What came of the texts.

    Attributes:
        taken: questions that passed.
        refused: how many did not, by the first reason.
    """

    taken: list[Written] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def parse(said: str) -> Written | None:
    """Read a question in the form that was asked for; None where it has another."""
    found = _FORM.fullmatch(said)
    if found is None:
        return None
    options = tuple(found[letter].strip() for letter in LETTERS)
    question = " ".join(found["question"].split())
    return Written(question=question, options=options, answer=found["answer"])  # type: ignore[arg-type]  # four


def write_questions(
    texts: Iterable[str],
    teacher: Teacher,
    benchmarks: KnownTexts,
    *,
    wanted: Callable[[Written], str | None] = QuestionFilter().refusal,
    seed: int = 0,
) -> Iterator[QuestionSet]:
    """Let a teacher write a question on each text.

    Args:
        texts: of training data only.
        teacher: writes and answers.
        benchmarks: what must not be repeated.
        wanted: as `QuestionFilter.refusal`.
        seed: of the teacher's words and the options' order.

    Yields:
        What has come of all texts so far, after every few of them.
    """
    result, own = QuestionSet(), KnownTexts()
    rest = enumerate(texts)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while some := list(islice(rest, _AT_ONCE)):
            said = pool.map(
                lambda one: teacher(_WRITE.format(text=one[1]), _seed(seed, one[0])), some
            )
            hopeful: list[tuple[int, Written]] = []
            for (number, _), answer in zip(some, said, strict=True):
                written = parse(answer)
                refusal = "form" if written is None else wanted(written)
                if written is not None and refusal is None:
                    refusal = _known(written, benchmarks, own)
                if written is None or refusal is not None:
                    result.refused[refusal or "form"] += 1
                    continue
                own.add(written.question)
                hopeful.append((number, written))
            agreed = pool.map(lambda one: _agrees(one[1], teacher, _seed(seed, one[0])), hopeful)
            for (_, written), agrees in zip(hopeful, agreed, strict=True):
                if agrees:
                    result.taken.append(written)
                else:
                    result.refused["inconsistent"] += 1
            yield result


def save_questions(path: Path, questions: Sequence[Written]) -> None:
    """Write questions as `exercises.read_questions` reads them, whole or not at all."""
    rows = [
        {
            "question": one.question,
            "check": "choice",
            "options": dict(zip(LETTERS, one.options, strict=True)),
            "answer": one.answer,
        }
        for one in questions
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def language_of(text: str) -> str:
    """The ISO 639-1 code of the language that a text seems to be in.

    Raises:
        InputError: py3langid is not installed.
    """
    try:
        import py3langid
    except ModuleNotFoundError as error:
        reason = "telling languages apart needs py3langid: pip install 'osler[train]'"
        raise InputError(reason) from error
    code: str = py3langid.classify(text)[0]
    return code


def _known(written: Written, benchmarks: KnownTexts, own: KnownTexts) -> str | None:
    """Whether a question is known, by itself or with its options."""
    whole = f"{written.question} {' '.join(written.options)}"
    if benchmarks.find(written.question) or benchmarks.find(whole):
        return "in a benchmark"
    return "repeated" if own.find(written.question) else None


def _agrees(written: Written, teacher: Teacher, seed: int) -> bool:
    """Whether the teacher, asked twice, gives the answer that it said was right."""
    right = written.options[LETTERS.index(written.answer)]
    for turn in range(2):
        options = list(written.options)
        if turn:
            random.Random(seed).shuffle(options)
        lettered = [f"{x}) {option}" for x, option in zip(LETTERS, options, strict=True)]
        asked = _ANSWER.format(question=written.question, options="\n".join(lettered))
        letter = choice_letter(teacher(asked, seed + 1 + turn))
        if letter is None or letter not in LETTERS or options[LETTERS.index(letter)] != right:
            return False
    return True


def _seed(*parts: int) -> int:
    return random.Random(repr(parts)).getrandbits(60)
