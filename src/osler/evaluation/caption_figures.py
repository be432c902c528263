"""Descriptions in words against the nearest training image's caption.

Shapes: N images, M training images, D embedding size.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from osler.evaluation.class_task import TITLES, true_labels
from osler.evaluation.embedded import EmbeddedImages
from osler.evaluation.figure import Figure, mean_of
from osler.evaluation.interview import Request, Said
from osler.evaluation.named_classes import named_classes
from osler.evaluation.naming import FINDINGS, findings, studies
from osler.evaluation.own_words import FREE_QUESTIONS, names_body_part, names_modality
from osler.evaluation.text_metrics import rouge_l, set_f1
from osler.ingest.image_pack import PackedImage

DESCRIPTIONS = "description"
NEIGHBOUR = "caption of the nearest training image"
DESCRIBE = FREE_QUESTIONS[0]
ROUGE_L, LABEL_F1 = "ROUGE-L", "label F1"

# Findings and signs that captions of radiology teaching cases name, as regular expressions.
_TERMS = (
    *(
        "mass(?:es)?",
        "lesions?",
        "nodul\\w+",
        "cyst\\w*",
        "tumou?rs?",
        "metasta\\w+",
        "abscess\\w*",
    ),
    *("h(?:a)?emorrhag\\w+|bleed\\w*|h(?:a)?ematoma", "infarct\\w*|isch(?:a)?em\\w+", "edema"),
    *("enhanc\\w+", "calcifi\\w+", "restricted diffusion|diffusion restriction", "fractures?"),
    *("effusions?", "opacit\\w+|opacif\\w+", "consolidation\\w*", "ground[- ]glass", "necro\\w+"),
    *(
        "dilat\\w+|dilation",
        "obstruct\\w+",
        "thicken\\w+",
        "stenosis",
        "aneurysm\\w*",
        "thromb\\w+",
    ),
    *("hydronephrosis", "hydrocephalus", "midline shift|mass effect", "atrophy", "hernia\\w*"),
    *("lymphadenopathy|adenopathy", "free air|pneumoperitoneum", "pneumothorax", "stones?|calculi"),
    *("hyperintens\\w+|high signal", "hypointens\\w+|low signal", "hyperdens\\w+", "hypodens\\w+"),
    *("ascites|free fluid", "fat strand\\w+|stranding", "tear\\w*", "ring[- ]enhanc\\w+"),
)


def caption_questions(items: Sequence[PackedImage]) -> Iterator[Request]:
    """What `caption_figures` needs to know."""
    for item in items:
        if reference(item):
            yield item, DESCRIBE


def reference(item: PackedImage) -> str:
    """The caption that a description is compared with; "" of a set that has none.

    MedPix's own; of a set with labels the study and the finding by their usual names.
    """
    if item.set_name == "medpix2":
        return item.text if isinstance(item.text, str) else ""
    if item.set_name not in FINDINGS:
        return ""
    return f"{studies(item)[0]} showing {findings(item)[0]}"


def caption_figures(
    said: Said, train: Mapping[str, EmbeddedImages], val: Mapping[str, EmbeddedImages]
) -> Iterator[Figure]:
    """ROUGE-L and label F1 of descriptions, of the neighbours' captions, and the paired gain.

    The labels of an image are its modality, its body part and its classes, or, of a MedPix image,
    the findings that its caption names. Those of a neighbour are its own, as the pack has them.
    Where captions are made from labels, a neighbour's has the very words of the reference, so that
    only the labels are a contest.

    Args:
        said: the model's answers to `caption_questions`.
        train: embedded training images by set.
        val: embedded validation images by set.
    """
    for name, of_set in val.items():
        rows = [row for row, item in enumerate(of_set.items) if reference(item)]
        if not rows or name not in train:
            continue
        items = [of_set.items[row] for row in rows]
        nearest_N = (of_set.vectors_ND[rows] @ train[name].vectors_ND.T).argmax(axis=1)
        neighbours = [train[name].items[column] for column in nearest_N]
        answers = [said(item, DESCRIBE) for item in items]
        scores = {
            (ROUGE_L, DESCRIPTIONS): [
                rouge_l(answer, reference(item))
                for item, answer in zip(items, answers, strict=True)
            ],
            (ROUGE_L, NEIGHBOUR): [
                rouge_l(reference(other), reference(item))
                for item, other in zip(items, neighbours, strict=True)
            ],
            (LABEL_F1, DESCRIPTIONS): [
                set_f1(named_labels(item, answer), known_labels(item))
                for item, answer in zip(items, answers, strict=True)
            ],
            (LABEL_F1, NEIGHBOUR): [
                set_f1(known_labels(other), known_labels(item))
                for item, other in zip(items, neighbours, strict=True)
            ],
        }
        groups = [item.group for item in items]
        for (metric, by), of_each in scores.items():
            yield mean_of(TITLES[name], metric, of_each, groups, by=by)
        for metric in (ROUGE_L, LABEL_F1):
            gain_N = np.subtract(scores[metric, DESCRIPTIONS], scores[metric, NEIGHBOUR])
            against = f"{DESCRIPTIONS} against {NEIGHBOUR}"
            target = None if metric == ROUGE_L and name in FINDINGS else 0.0
            yield mean_of(
                TITLES[name], metric, gain_N, groups, by=against, target=target, clearly=True
            )


def known_labels(item: PackedImage) -> set[str]:
    """What the pack says that an image is and shows."""
    return {f"modality {item.modality}", f"part {item.body_part}", *_shown(item)}


def named_labels(item: PackedImage, answer: str) -> set[str]:
    """What an answer says that an image is and shows, in the words of `known_labels`.

    Of modality and body part the right one counts as named where `own_words` says so; another, or
    none, counts as a wrong one.
    """
    modality = item.modality if names_modality(answer, item.modality) else "another"
    part = item.body_part if names_body_part(answer, item.body_part) else "another"
    shown = _terms(answer)
    if item.set_name in FINDINGS:
        shown = set(named_classes(item.set_name, answer))
    return {f"modality {modality}", f"part {part}", *shown}


def _shown(item: PackedImage) -> set[str]:
    if item.set_name in FINDINGS:
        return set(true_labels(item))
    return _terms(item.text if isinstance(item.text, str) else "")


def _terms(text: str) -> set[str]:
    return {term for term in _TERMS if re.search(rf"\b(?:{term})\b", text.lower())}
