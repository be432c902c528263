"""What the decoder reads without images: pairs of question and answer, and plain medical text.

`bench/` is never read, and rows of a validation split only when that split is asked for.
"""

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from osler.errors import UnreadableFileError
from osler.ingest.image_pack import Split
from osler.ingest.text_pack import read_text_pack
from osler.training.streams.shards import Row

# A prompt and its answer; plain text for language modelling has no prompt.
Sample = tuple[str | None, str]
Fields = dict[str, Any]

_PROMPT_CHARS = 1400
_PLAIN_CHARS = 1000
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]%\"][.!?])\s+(?=[A-Z0-9\"(])")

_SECTIONS = {
    "FAM/SOCHX": "family and social history",
    "GENHX": "history of present illness",
    "PASTMEDICALHX": "past medical history",
    "CC": "chief complaint",
    "PASTSURGICAL": "past surgical history",
    "ROS": "review of systems",
    "ALLERGY": "allergies",
    "MEDICATIONS": "medications",
    "ASSESSMENT": "assessment",
    "EXAM": "physical exam",
    "DIAGNOSIS": "diagnosis",
    "DISPOSITION": "disposition",
    "PLAN": "plan",
    "EDCOURSE": "emergency department course",
    "IMMUNIZATIONS": "immunizations",
    "IMAGING": "imaging",
    "GYNHX": "gynecologic history",
    "PROCEDURES": "procedures",
    "OTHER_HISTORY": "other history",
    "LABS": "laboratory results",
}


def text_samples(
    folder: str | os.PathLike[str], split: Split, rng: random.Random, *, answer_chars: int = 400
) -> Iterator[Sample]:
    """Read every text of the pack as training samples, text after text.

    Args:
        folder: the data pack, or its `text` folder.
        split: "train" or "val".
        rng: chooses the wording of prompts.
        answer_chars: the most that an answer to a prompt may have; longer ones are cut at the
            end of a sentence, or left out where their first sentence is longer.

    Yields:
        A prompt (None for plain text of at most about 1,000 characters) and what is to be said.

    Raises:
        UnreadableFileError: a text is missing or damaged.
    """
    for name in _MAKERS:
        for row in read_text_pack(Path(folder), name, split):
            yield from _samples(name, row, rng, answer_chars)


def row_samples(
    source: str, row: Row, split: Split, rng: random.Random, *, answer_chars: int = 400
) -> list[Sample]:
    """Make training samples of a row of a stream.

    Args:
        source: where it comes from. The texts of the pack are known by name; other rows have a
            `text`, or a `prompt` (or `question`) and an `answer` (or `response`).
        row: it.
        split: a row that names another one gives nothing.
        rng: chooses the wording of prompts.
        answer_chars: as for `text_samples`; for the texts of the pack only.

    Raises:
        UnreadableFileError: the row has none of these fields; names file and line.
    """
    if row.fields.get("split", split) != split:
        return []
    if source in _MAKERS:
        try:
            return list(_samples(source, row.fields, rng, answer_chars))
        except (KeyError, TypeError) as error:
            raise UnreadableFileError(f"{row.where}: not a row of {source}") from error
    if any(name in row.fields for name in ("prompt", "question")):
        return [(row.text("prompt", "question"), row.text("answer", "response"))]
    return [(None, row.text("text", "txt"))]


def _samples(source: str, row: Fields, rng: random.Random, answer_chars: int) -> Iterator[Sample]:
    for prompt, text in _MAKERS[source](row, rng):
        if prompt is None:
            yield from ((None, part) for part in _parts(text, _PLAIN_CHARS))
        elif len(prompt) <= _PROMPT_CHARS and (answer := shorten(text, answer_chars)):
            yield prompt, answer


def shorten(text: str, most_chars: int) -> str:
    """Keep as many whole sentences as fit; nothing where the first one does not.

    >>> shorten("It is a virus. It spreads by touch.", 20)
    'It is a virus.'
    """
    first = next(_parts(text, most_chars), "")
    return first if text.strip().startswith(first) else ""


def without_blanks(report: str) -> str:
    """Leave out the sentences of a report in which a word was replaced by XXXX."""
    if "XXXX" not in report:
        return report
    # The numbers of a list mean nothing once one of its sentences is gone.
    unnumbered = re.sub(r"(?:^|(?<=\s))\d+\.\s+", "", report)
    return " ".join(part for part in _SENTENCE_END.split(unnumbered) if "XXXX" not in part)


def _medquad(row: Fields, rng: random.Random) -> Iterator[Sample]:
    answer = _clean(row["answer"])
    # Lists of links, and tables whose rows were lost, answer nothing.
    if answer.startswith("These resources") or "Human Phenotype Ontology" in answer:
        return
    question = _clean(row["question"]).replace("What is (are)", "What is").replace(" ?", "?")
    if answer.split("?")[0].count(" ") < 25 and "?" in answer[:200]:
        answer = answer.split("?", 1)[1].strip()  # it repeats the question
    answer = answer.removeprefix("Key Points - ").replace(" - ", " ")
    yield question, answer
    yield None, answer


def _mts_dialog(row: Fields, rng: random.Random) -> Iterator[Sample]:
    section = _SECTIONS[row["section_header"]]
    dialogue = "\n".join(_clean(line) for line in row["dialogue"].splitlines() if line.strip())
    ask = rng.choice(
        (
            "Write the {section} section of a note from this conversation.",
            "Summarize this conversation as {section}.",
            "What is the {section} in this dialogue? Write it as in a clinical note.",
        )
    )
    yield f"{ask.format(section=section)}\n\n{dialogue}", _clean(row["section_text"])


def _aci_bench(row: Fields, rng: random.Random) -> Iterator[Sample]:
    yield None, _clean(row["note"])


def _pubmedqa(row: Fields, rng: random.Random) -> Iterator[Sample]:
    said = f"{row['decision'].capitalize()}. {_clean(row['long_answer'])}"
    yield f"{_clean(row['contexts'][-1])}\n\nQuestion: {_clean(row['question'])}", said
    yield None, _clean(" ".join(row["contexts"]))


def _iu_xray(row: Fields, rng: random.Random) -> Iterator[Sample]:
    findings = without_blanks(_clean(row.get("findings", "")))
    impression = without_blanks(_clean(row.get("impression", "")))
    indication = without_blanks(_clean(row.get("indication", "")))
    if findings and impression:
        ask = rng.choice(
            (
                "Write the impression for these chest X-ray findings.",
                "Summarize these chest X-ray findings in an impression.",
                "What is the impression?",
            )
        )
        yield f"{ask}\n\nFindings: {findings}", impression
    if findings:
        named = {"Indication": indication, "Findings": findings, "Impression": impression}
        told = [f"{name}: {text}" for name, text in named.items() if text]
        yield None, f"Chest X-ray. {' '.join(told)}"


def _mediqa(row: Fields, rng: random.Random) -> Iterator[Sample]:
    if row["kind"] == "ranked_answers":
        best = min(row["answers"], key=lambda answer: int(answer["reference_rank"]))
        yield _clean(row["question"]), _clean(best["text"])
        return
    first, second = _clean(row["question_a"]), _clean(row["question_b"])
    if first != second:
        ask = "Does an answer to the second question also answer the first?"
        yield f"{ask}\n\n1. {first}\n2. {second}", "Yes." if row["entails"] else "No."


def _medpix(row: Fields, rng: random.Random) -> Iterator[Sample]:
    history, findings = _clean(row.get("history", "")), _clean(row.get("findings", ""))
    diagnosis = _clean(row.get("diagnosis", "")).rstrip(".")
    if history and findings and diagnosis:
        ask = rng.choice(
            ("What is the most likely diagnosis?", "What is the diagnosis?", "Give the diagnosis.")
        )
        yield f"{ask}\n\nHistory: {history}\nFindings: {findings}", f"{diagnosis}."
    topic, told = _clean(row.get("topic", "")).rstrip("."), _clean(row.get("topic_discussion", ""))
    if topic and told:
        yield rng.choice(("What is {topic}?", "Tell me about {topic}.")).format(topic=topic), told
        yield None, told


def _bioner(row: Fields, rng: random.Random) -> Iterator[Sample]:
    # One of the two corpora marks diseases only: it does not say that there are no chemicals.
    both = row["corpus"] == "BC5CDR" and rng.random() < 0.5
    kind, name = ("Chemical", "chemicals") if both else ("Disease", "diseases")
    text = _untokenized(row["text"])
    found = dict.fromkeys(
        _untokenized(entity["text"]) for entity in row["entities"] if entity["type"] == kind
    )
    # A third of the sentences names nothing; asked about all, "None" would be the usual answer.
    if found or rng.random() < 0.2:
        ask = rng.choice(("List the {name} in this text.", "Which {name} does this text name?"))
        yield f"{ask.format(name=name)}\n\n{text}", "; ".join(found) or "None."
    yield None, text


_MAKERS: dict[str, Callable[[Fields, random.Random], Iterator[Sample]]] = {
    "medquad": _medquad,
    "mts_dialog": _mts_dialog,
    "aci_bench": _aci_bench,
    "pubmedqa_train": _pubmedqa,
    "iu_xray_reports": _iu_xray,
    "mediqa2019_train": _mediqa,
    "medpix_cases_train": _medpix,
    "bioner_train": _bioner,
}
# The texts of the pack whose rows name a split of their own.
SPLIT_TEXTS = frozenset({"mts_dialog", "aci_bench"})


def _parts(text: str, most_chars: int) -> Iterator[str]:
    """Cut a text at sentence ends into pieces, leaving out a sentence too long by itself."""
    part = ""
    for sentence in _SENTENCE_END.split(text.strip()):
        joined = f"{part} {sentence}".strip()
        if len(joined) <= most_chars:
            part = joined
            continue
        if part:
            yield part
        part = sentence if len(sentence) <= most_chars else ""
    if part:
        yield part


def _untokenized(text: str) -> str:
    """Join what the corpus set apart: "Parkinson ' s disease ( PD ) ." reads as usual again."""
    text = re.sub(r"\s+([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+", r"\1", text)
    return re.sub(r"(?<=\w) ([-/']) (?=\w)", r"\1", text).strip()


def _clean(text: str | None) -> str:
    return " ".join((text or "").replace("\u2022", " ").split())
