"""The encoder's figures by age and sex, where a set tells them."""

from collections.abc import Iterator, Sequence

import numpy as np

from osler.evaluation.encoder_figures import PROBE, ZERO_SHOT, Told
from osler.evaluation.figure import Figure, auc, share
from osler.ingest.image_pack import PackedImage

# Whole years, the last one included.
_BANDS = ((0, 39), (40, 59), (60, 150))
# Fewer images than this tell nothing of a group.
_LEAST = 20


def subgroup_figures(told: Told, items: Sequence[PackedImage]) -> Iterator[Figure]:
    """Area under the curve and accuracy of each group of patients.

    Args:
        told: what the encoder made of one set.
        items: the validation images that `told.task` was made of.
    """
    task = told.task
    groups_of = [_subgroups(items[row]) for row in task.rows]
    for name in sorted({name for of_one in groups_of for name in of_one}):
        rows = np.flatnonzero([name in of_one for of_one in groups_of])
        if len(rows) < _LEAST:
            continue
        truth_NC = task.truth_NC[rows]
        groups = [task.groups[row] for row in rows]
        for by in (PROBE, ZERO_SHOT):
            scores_NC = told.probabilities[by][rows]
            yield auc(f"{task.title}: {name}", truth_NC, scores_NC, groups, by=by)
            yield share(f"{task.title}: {name}", told.right(by)[rows], groups, by=by)


def _subgroups(item: PackedImage) -> set[str]:
    names = set()
    age = str(item.meta.get("age", "")).strip()
    if age.isdecimal():
        for first, last in _BANDS:
            if first <= int(age) <= last:
                names.add(f"aged {first} to {last}" if last < 100 else f"aged {first} and over")
    sex = str(item.meta.get("sex", "")).strip().lower()
    if sex in ("female", "male"):
        names.add(sex)
    return names
