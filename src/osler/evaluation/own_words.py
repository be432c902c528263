"""Whether a model says in its own words what an image is: free answers, scored by word lists."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from osler.evaluation.class_task import TITLES
from osler.evaluation.figure import UNSCORED, Figure, balanced, share
from osler.evaluation.interview import Request, Said
from osler.evaluation.named_classes import named_classes
from osler.evaluation.targets import MODALITY_AND_BODY_PART
from osler.ingest.image_pack import PackedImage

# None of them tells what the image is; only the first is also a question of the training.
FREE_QUESTIONS = (
    "Describe this image.",
    "What am I looking at?",
    "Tell a colleague what the attached picture is.",
)
PNEUMONIA_QUESTION = "Is there pneumonia?"

_MODALITY_WORDS = {
    "CR": r"x-?\s?rays?|radiographs?|plain films?",
    "CT": r"ct|computed tomograph\w*",
    "MR": r"mri?|magnetic resonance",
    "US": r"ultraso\w+|sonogra\w+|echograph\w+",
    "XC": r"derm(?:at)?oscop\w*|skin (?:lesion )?(?:photo\w*|image)"
    r"|photo\w* of (?:a |the )?skin",
    "OP": r"fundus|fundosc\w+|retinal (?:photo\w*|image)|photo\w* of (?:the )?retina",
    "SM": r"histolog\w*|histopatholog\w*|microscop\w*|h&e|biopsy|pathology slide",
}
_BODY_PART_WORDS = {
    "CHEST": r"chest|thora\w+|lungs?|pulmonary",
    "LUNG": r"lungs?|pulmonary",
    "HEAD": r"brain|head|cerebr\w+|crani\w+|skull|intracranial|orbits?",
    "ABDOMEN": r"abdom\w+|belly",
    "PELVIS_GU": r"pelvi\w+|genitourinary|urinary|kidneys?|renal",
    "SPINE_MSK": r"spin\w+|vertebra\w*|bones?|joints?|musculoskeletal|knee|hip|shoulder"
    r"|femur|femoral|limb|extremit\w+",
    "SKIN": r"skin|cutaneous",
    "EYE": r"eyes?|retina\w*|ocular",
    "BREAST": r"breasts?|mammary",
}
# Scans of both are usual, and the set's two categories go by organ system, not by what is in view.
_ALSO_RIGHT = {"ABDOMEN": "PELVIS_GU", "PELVIS_GU": "ABDOMEN", "CHEST": "LUNG", "LUNG": "CHEST"}


def names_modality(answer: str, modality: str) -> bool:
    """Whether an answer names this modality and no other.

    >>> names_modality("An MRI of the brain, or a CT.", "MR")
    False
    """
    named = {name for name, words in _MODALITY_WORDS.items() if _holds(words, answer)}
    return named == {modality}


def names_body_part(answer: str, body_part: str) -> bool:
    """Whether an answer names this body part before any other.

    Later words may tell of a place within it: an eye's optic nerve head, a skull base.

    >>> names_body_part("A fundus photo of the eye; the optic nerve head is pale.", "EYE")
    True
    """
    region = "HEAD" if body_part == "BRAIN" else body_part
    if not _holds(_BODY_PART_WORDS[region], answer):
        return False
    first = {
        name: match.start()
        for name, words in _BODY_PART_WORDS.items()
        if (match := _search(words, answer)) and name != _ALSO_RIGHT.get(region)
    }
    return min(first, key=first.__getitem__) == region


def tells_pneumonia(answer: str) -> bool | None:
    """Whether a description says that there is pneumonia; None where it says neither, or both.

    >>> tells_pneumonia("A chest X-ray. No sign of pneumonia.")
    False
    """
    named = named_classes("cxr_kermany", answer)
    return named == ("pneumonia",) if len(named) == 1 else None


def says_yes(answer: str) -> bool | None:
    """Whether an answer begins with yes or no; None where it begins with neither.

    >>> says_yes("No, the lungs are clear.")
    False
    """
    first = re.match(r"\W*(yes|no)\b", answer.lower())
    return None if first is None else first[1] == "yes"


def own_words_questions(items: Sequence[PackedImage]) -> Iterator[Request]:
    """What `own_words_figures` needs to know: each image is asked one of `FREE_QUESTIONS`, in turn.

    Images whose modality the set does not tell are left out.
    """
    for place, item in enumerate(_known(items)):
        yield item, FREE_QUESTIONS[place % len(FREE_QUESTIONS)]
        if item.set_name == "cxr_kermany":
            yield item, PNEUMONIA_QUESTION


def own_words_figures(said: Said, items: Sequence[PackedImage]) -> Iterator[Figure]:
    """Measure free answers about validation images.

    Args:
        said: the model's answers to `own_words_questions`.
        items: validation images.

    Yields:
        The share that names modality and body part, over all and set by set; then pneumonia
        against normal (balanced accuracy), from the free answers and from being asked.
    """
    known = _known(items)
    if not known:
        return
    questions = [
        question for _, question in own_words_questions(items) if question in FREE_QUESTIONS
    ]
    answers = [said(item, question) for item, question in zip(known, questions, strict=True)]
    right = np.array(
        [
            names_modality(answer, item.modality) and names_body_part(answer, item.body_part)
            for item, answer in zip(known, answers, strict=True)
        ]
    )

    def named(name: str, rows: Sequence[int], target: float | None = None) -> Figure:
        groups = [(known[row].set_name, known[row].group) for row in rows]
        return share(name, right[list(rows)], groups, target=target)

    yield named("Modality and body part, all sets", range(len(known)), MODALITY_AND_BODY_PART)
    for asked in FREE_QUESTIONS:
        if rows := [row for row, question in enumerate(questions) if question == asked]:
            yield named(f'asked "{asked}"', rows)
    for set_name in dict.fromkeys(item.set_name for item in known):
        rows = [row for row, item in enumerate(known) if item.set_name == set_name]
        yield named(TITLES[set_name], rows)


def pneumonia_figures(said: Said, items: Sequence[PackedImage]) -> Iterator[Figure]:
    """Pneumonia against normal: from what is said freely, and asked for yes or no."""
    asked = [pair for pair in own_words_questions(items) if pair[0].set_name == "cxr_kermany"]
    chests = [item for item, question in asked if question == PNEUMONIA_QUESTION]
    if not chests:
        return
    free = [tells_pneumonia(said(*pair)) for pair in asked if pair[1] != PNEUMONIA_QUESTION]
    direct = [says_yes(said(item, PNEUMONIA_QUESTION)) for item in chests]
    yield _pneumonia("Pneumonia or normal, from the free answer", chests, free)
    yield _pneumonia(f'Pneumonia or normal, asked "{PNEUMONIA_QUESTION}"', chests, direct)


def _pneumonia(name: str, items: Sequence[PackedImage], said: Sequence[bool | None]) -> Figure:
    words = {True: "pneumonia", False: "normal", None: UNSCORED}
    return balanced(
        name,
        [str(item.labels["finding"]) for item in items],
        [words[state] for state in said],
        [item.group for item in items],
        classes=2,
    )


def _known(items: Sequence[PackedImage]) -> list[PackedImage]:
    return [item for item in items if item.modality in _MODALITY_WORDS]


def _search(words: str, answer: str) -> re.Match[str] | None:
    return re.search(rf"\b(?:{words})\b", answer.lower())


def _holds(words: str, answer: str) -> bool:
    return _search(words, answer) is not None
