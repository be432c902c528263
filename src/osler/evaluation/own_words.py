"""Whether a model says in its own words what an image is: free answers, scored by word lists."""

import re
from collections.abc import Callable, Iterator, Sequence

from osler.evaluation.figure import UNSCORED, Figure, balanced, share
from osler.ingest.image_pack import PackedImage

# Answers a question about each image, in their order.
Answerer = Callable[[Sequence[PackedImage], Sequence[str]], Sequence[str]]

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

_NEGATION = r"\b(?:no|not|without|free of|absence of|negative for|rules? out|neither)\b"
# A comma ends what is negated, but in a list: "no effusion, mass or pneumonia".
_NEGATED_PNEUMONIA = re.compile(rf"{_NEGATION}(?:[^,.;:]*|[^.;:]*\bn?or(?: \w+)? )\bpneumonia")
_NORMAL = re.compile(
    r"(?<!not )\bnormal\b|\bclear lungs?\b|\blungs? (?:are|is|appear|look)s? clear\b|\bhealthy\b"
    r"|\bno (?:acute |focal |significant )?(?:finding|abnormalit|disease|opacit|consolidation)"
)


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
    text = answer.lower()
    negative = bool(_NEGATED_PNEUMONIA.search(text) or _NORMAL.search(text))
    positive = "pneumonia" in _NEGATED_PNEUMONIA.sub("", text)
    return None if positive == negative else positive


def says_yes(answer: str) -> bool | None:
    """Whether an answer begins with yes or no; None where it begins with neither.

    >>> says_yes("No, the lungs are clear.")
    False
    """
    first = re.match(r"\W*(yes|no)\b", answer.lower())
    return None if first is None else first[1] == "yes"


def own_words_figures(answer: Answerer, items: Sequence[PackedImage]) -> Iterator[Figure]:
    """Measure free answers about validation images.

    Each image is asked one of `FREE_QUESTIONS`, in turn. Images whose modality the set does not
    tell are left out.

    Args:
        answer: the model.
        items: validation images.

    Yields:
        The share that names modality and body part, over all and set by set; then pneumonia
        against normal (balanced accuracy), from the free answers and from being asked.
    """
    known = [item for item in items if item.modality in _MODALITY_WORDS]
    questions = [FREE_QUESTIONS[i % len(FREE_QUESTIONS)] for i in range(len(known))]
    answers = answer(known, questions)
    right = [
        names_modality(said, item.modality) and names_body_part(said, item.body_part)
        for item, said in zip(known, answers, strict=True)
    ]
    yield share("Modality and body part, all sets", right)
    for asked in FREE_QUESTIONS:
        of_question = [
            good for good, question in zip(right, questions, strict=True) if question == asked
        ]
        if of_question:
            yield share(f'Modality and body part, asked "{asked}"', of_question)
    for name in dict.fromkeys(item.set_name for item in known):
        yield share(
            f"Modality and body part, {name}",
            [good for item, good in zip(known, right, strict=True) if item.set_name == name],
        )
    chests = [item for item in known if item.set_name == "cxr_kermany"]
    if not chests:
        return
    described = [
        tells_pneumonia(said)
        for item, said in zip(known, answers, strict=True)
        if item.set_name == "cxr_kermany"
    ]
    yield _pneumonia("Pneumonia or normal, from the free answer", chests, described)
    asked_directly = answer(chests, [PNEUMONIA_QUESTION] * len(chests))
    yield _pneumonia(
        f'Pneumonia or normal, asked "{PNEUMONIA_QUESTION}"',
        chests,
        [says_yes(said) for said in asked_directly],
    )


def _pneumonia(name: str, items: Sequence[PackedImage], said: Sequence[bool | None]) -> Figure:
    words = {True: "pneumonia", False: "normal", None: UNSCORED}
    return balanced(
        name,
        [str(item.labels["finding"]) for item in items],
        [words[state] for state in said],
        [item.group for item in items],
        classes=2,
    )


def _search(words: str, answer: str) -> re.Match[str] | None:
    return re.search(rf"\b(?:{words})\b", answer.lower())


def _holds(words: str, answer: str) -> bool:
    return _search(words, answer) is not None
