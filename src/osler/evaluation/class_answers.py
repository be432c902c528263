"""The encoder's classifications asked of MedGemma, whose answers are in words."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from osler.evaluation.encoder_figures import PROBE, ZERO_SHOT, Told
from osler.evaluation.figure import ACCURACY, UNSCORED, Figure, balanced, mean_of, share
from osler.evaluation.interview import Request, Said
from osler.evaluation.named_classes import named_classes
from osler.evaluation.naming import FINDINGS
from osler.evaluation.targets import ACCURACY_DIFFERENCE
from osler.ingest.image_pack import PackedImage

ANSWERS = "answers in words"
CLASS_QUESTION = "What is the most likely diagnosis?"


def class_questions(items: Sequence[PackedImage]) -> Iterator[Request]:
    """What `class_answer_figures` needs to know."""
    for item in items:
        if item.set_name in FINDINGS:
            yield item, CLASS_QUESTION


def class_answer_figures(
    said: Said, items: Mapping[str, Sequence[PackedImage]], of_encoder: Sequence[Told]
) -> Iterator[Figure]:
    """Accuracy of the classes named, beside the encoder's on the same images.

    An answer that names one class of a set is scored; one that names none, or several that exclude
    each other, counts as wrong. Of an eye's labels the first named counts, as the most probable
    one does for the encoder.

    Args:
        said: the model's answers to `class_questions`.
        items: validation images by set.
        of_encoder: what the encoder made of them.
    """
    for told in of_encoder:
        task = told.task
        if task.set_name not in FINDINGS:
            continue
        asked = [items[task.set_name][row] for row in task.rows]
        named = [named_classes(task.set_name, said(item, CLASS_QUESTION)) for item in asked]
        chosen = [
            of_one[0] if len(of_one) == 1 or (of_one and not task.exclusive) else UNSCORED
            for of_one in named
        ]
        right_N = np.array(
            [
                label in task.labels and bool(truth[task.labels.index(label)])
                for label, truth in zip(chosen, task.truth_NC, strict=True)
            ]
        )
        unscored = chosen.count(UNSCORED)
        yield share(task.title, right_N, task.groups, by=ANSWERS, unscored=unscored)
        if task.exclusive:
            true = [task.labels[column] for column in task.first_label_N]
            yield balanced(task.title, true, chosen, task.groups, len(task.labels), by=ANSWERS)
        for by, target in ((PROBE, ACCURACY_DIFFERENCE), (ZERO_SHOT, None)):
            yield share(task.title, told.right(by), task.groups, by=by)
            yield mean_of(
                task.title,
                ACCURACY,
                right_N.astype(float) - told.right(by),
                task.groups,
                by=f"{ANSWERS} against {by}",
                target=target,
            )
