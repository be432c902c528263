"""How well an encoder tells the classes of each set apart: by a linear probe, and zero-shot.

Shapes: N images, D embedding size, C labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from osler.evaluation import targets
from osler.evaluation.class_task import (
    SOURCE_FREQUENCIES,
    TITLES,
    ClassTask,
    among_true,
    class_task,
)
from osler.evaluation.embedded import EmbeddedImages
from osler.evaluation.figure import ACCURACY, AUC, Figure, auc, balanced, measured, share
from osler.evaluation.linear_probe import fit_probe
from osler.evaluation.metrics import macro_auc, weighed_recall
from osler.evaluation.prompts import zero_shot_prompts

PROBE, ZERO_SHOT = "linear probe", "zero-shot"
# The same probe, told how often the classes come at their source.
PROBE_AT_SOURCE = "linear probe with the source's frequencies"
DIFFERENCE = f"{ZERO_SHOT} against {PROBE}"


class LabelComparer(Protocol):
    """What says how well labels fit embedded images; `osler.load_encoder` gives one."""

    def compare(
        self, images_ND: NDArray[np.float32], labels: Mapping[str, Sequence[str]], /
    ) -> NDArray[np.float64]:
        """The probability of each label (N, C); labels come with their prompts."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What an encoder makes of the validation images of one set.

    Attributes:
        task: which images these are, and what is true of them.
        probabilities: (N, C) by who says so: `PROBE`, `ZERO_SHOT`.
        train_counts: of each label in the training images.
        strength: of the probe's regularisation.
    """

    task: ClassTask
    probabilities: Mapping[str, NDArray[np.float64]]
    train_counts: Mapping[str, int]
    strength: float

    def right(self, by: str) -> NDArray[np.bool_]:
        """Whether the most probable label of each image is right, (N,)."""
        return among_true(self.task.truth_NC, self.probabilities[by].argmax(axis=1))


def told_by_encoder(
    encoder: LabelComparer,
    train: Mapping[str, EmbeddedImages],
    val: Mapping[str, EmbeddedImages],
) -> Iterator[Told]:
    """Fit a probe to each set's training images, and classify its validation images both ways.

    Args:
        encoder: what embedded the images.
        train: embedded training images by set.
        val: embedded validation images by set; sets that `train` lacks are left out.
    """
    prompts = zero_shot_prompts()
    for name in TITLES:
        if name not in train or name not in val:
            continue
        learnt, task = class_task(name, train[name].items), class_task(name, val[name].items)
        if len(task.rows) == 0 or learnt.truth_NC.any(axis=0).sum() < 2:
            continue
        probe = fit_probe(
            train[name].vectors_ND[learnt.rows],
            learnt.truth_NC,
            learnt.groups,
            exclusive=learnt.exclusive,
        )
        vectors_ND = val[name].vectors_ND[task.rows]
        yield Told(
            task=task,
            probabilities={
                PROBE: probe.probabilities(vectors_ND),
                ZERO_SHOT: encoder.compare(vectors_ND, prompts[name]),
            },
            train_counts=dict(
                zip(learnt.labels, learnt.truth_NC.sum(axis=0).tolist(), strict=True)
            ),
            strength=probe.strength,
        )


def encoder_figures(told: Told) -> Iterator[Figure]:
    """Area under the curve, accuracy and balanced accuracy of one set, by probe and zero-shot.

    Accuracy is the share of images whose most probable label is right; of eyes with several
    labels, any of them is. The area under the curve is the mean over labels, each against the
    rest. Where a pack holds classes at other frequencies than the source, the accuracy with the
    recalls weighed by the source's frequencies comes too.
    """
    task, name = told.task, told.task.title
    for by, scores_NC in told.probabilities.items():
        chosen_N = scores_NC.argmax(axis=1)
        aim = targets.OF_ENCODER.get((task.set_name, AUC))
        yield auc(name, task.truth_NC, scores_NC, task.groups, by=by, target=aim)
        yield share(
            name,
            told.right(by),
            task.groups,
            by=by,
            target=targets.OF_ENCODER.get((task.set_name, ACCURACY)),
        )
        if task.exclusive:
            true, said = ([task.labels[c] for c in N] for N in (task.first_label_N, chosen_N))
            yield balanced(name, true, said, task.groups, len(task.labels), by=by)
        if task.set_name in SOURCE_FREQUENCIES:
            yield _at_source(task, chosen_N, by)
    if task.set_name in SOURCE_FREQUENCIES:
        source = SOURCE_FREQUENCIES[task.set_name]
        odds_C = np.array(
            [source[label] / max(told.train_counts[label], 1) for label in task.labels]
        )
        chosen_N = (told.probabilities[PROBE] * odds_C).argmax(axis=1)
        yield _at_source(task, chosen_N, PROBE_AT_SOURCE)
    yield _auc_difference(told)


def _auc_difference(told: Told) -> Figure:
    def difference(rows: NDArray[np.int64]) -> float:
        truth_NC = told.task.truth_NC[rows]
        zero_shot, probe = (
            macro_auc(truth_NC, told.probabilities[by][rows]) for by in (ZERO_SHOT, PROBE)
        )
        return zero_shot - probe

    task, target = told.task, targets.AUC_DIFFERENCE
    return measured(task.title, AUC, difference, task.groups, by=DIFFERENCE, target=target)


def _at_source(task: ClassTask, chosen_N: NDArray[np.int64], by: str) -> Figure:
    source = SOURCE_FREQUENCIES[task.set_name]
    frequencies = {column: source[label] for column, label in enumerate(task.labels)}
    true_N = task.first_label_N
    return measured(
        task.title,
        targets.SOURCE_ACCURACY,
        lambda rows: weighed_recall(true_N[rows], chosen_N[rows], frequencies),
        task.groups,
        by=by,
        target=targets.OF_ENCODER.get((task.set_name, targets.SOURCE_ACCURACY)),
    )
