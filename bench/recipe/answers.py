"""What models answer about validation images, and which of it is right."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from osler.evaluation.class_task import true_labels
from osler.evaluation.interview import Request, interview
from osler.evaluation.named_classes import named_classes
from osler.evaluation.naming import FINDINGS
from osler.evaluation.own_words import names_body_part, names_modality
from osler.evaluation.speed import fast_assistant
from osler.ingest.image_pack import PackedImage


def answers(models: Mapping[str, Path], requests: Iterable[Request]) -> dict[str, list[str]]:
    """What each model answers, in the order of the requests."""
    asked = list(requests)
    found = {}
    for name, folder in models.items():
        with fast_assistant(str(folder)) as assistant:
            said = interview(assistant, asked)
        found[name] = [said(item, question) for item, question in asked]
    return found


def classified(items: Sequence[PackedImage]) -> list[PackedImage]:
    """The images of which `names_the_class` can be asked."""
    return [item for item in items if item.set_name in FINDINGS]


def names_the_class(item: PackedImage, answer: str) -> bool:
    """Whether an answer names the right class and no other; of an eye's labels, any first."""
    named, true = named_classes(item.set_name, answer), true_labels(item)
    return bool(named) and named[0] in true and (len(named) == 1 or len(true) > 1)


def names_the_study(item: PackedImage, answer: str) -> bool:
    """Whether a description names modality and body part."""
    return names_modality(answer, item.modality) and names_body_part(answer, item.body_part)
