"""The classifications of the data pack: which labels a set has, and which are right.

Shapes: N images, C labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osler.evaluation.prompts import zero_shot_label, zero_shot_prompts
from osler.ingest.image_pack import PackedImage

TITLES: Mapping[str, str] = {
    "cxr_kermany": "Chest X-ray, pneumonia (Kermany)",
    "derm_ham10000": "Dermoscopy, 7 classes (HAM10000)",
    "fundus_odir512": "Fundus, 8 labels of an eye (ODIR-5K)",
    "mri_brain_tumor": "Brain MRI, 4 classes",
    "histo_lc25000_lung": "Lung histology, 3 classes (LC25000)",
    "ct_covid": "CT figures, COVID-19 (COVID-CT)",
    "us_busi": "Breast ultrasound, 3 classes (BUSI)",
    "medpix2": "Teaching cases, CT / MR (MedPix 2)",
    "vqa_rad": "Organ of the image (VQA-RAD)",
}

# Sets of which a pack holds the classes at other frequencies than their sources do.
SOURCE_FREQUENCIES: Mapping[str, Mapping[str, float]] = {
    # Tschandl et al., "The HAM10000 dataset", Scientific Data 5:180161, 2018, table 2.
    "derm_ham10000": {
        **{"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514},
        **{"akiec": 327, "vasc": 142, "df": 115},
    },
}

_SEVERAL_LABELS = frozenset({"fundus_odir512"})


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassTask:
    """The labelled images of one set.

    Attributes:
        set_name: of the image set.
        labels: the labels that there are, in the order of the columns.
        rows: which of the images that were given are labelled.
        truth_NC: bool, what is true of each of these.
        groups: the patient, lesion or case of each.
        exclusive: whether each image has one label.
    """

    set_name: str
    labels: tuple[str, ...]
    rows: NDArray[np.int64]
    truth_NC: NDArray[np.bool_]
    groups: list[str]
    exclusive: bool

    @property
    def title(self) -> str:
        """What is classified."""
        return TITLES[self.set_name]

    @property
    def first_label_N(self) -> NDArray[np.int64]:
        """The column of each image's only label, or of the first of several."""
        column_N: NDArray[np.int64] = self.truth_NC.argmax(axis=1)
        return column_N


def class_task(set_name: str, items: Sequence[PackedImage]) -> ClassTask:
    """What is to be told apart in a set of the pack.

    Args:
        set_name: one of `TITLES`.
        items: images of that set; those without a label are left out.
    """
    labels = tuple(zero_shot_prompts()[set_name])
    known = [true_labels(item) for item in items]
    truth_NC = np.array([[label in of_one for label in labels] for of_one in known], dtype=bool)
    truth_NC = truth_NC.reshape(len(items), len(labels))
    rows = np.flatnonzero(truth_NC.any(axis=1))
    return ClassTask(
        set_name=set_name,
        labels=labels,
        rows=rows,
        truth_NC=truth_NC[rows],
        groups=[items[row].group for row in rows.tolist()],
        exclusive=set_name not in _SEVERAL_LABELS,
    )


def true_labels(item: PackedImage) -> tuple[str, ...]:
    """All the labels of `zero_shot_prompts` that are right for an image."""
    if item.set_name in _SEVERAL_LABELS:
        return tuple(str(label) for label in item.labels["eye"])
    label = zero_shot_label(item)
    return () if label is None else (label,)


def among_true(truth_NC: NDArray[np.bool_], chosen_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the label chosen for each image is one of its own, (N,)."""
    right_N: NDArray[np.bool_] = truth_NC[np.arange(len(truth_NC)), chosen_N]
    return right_N
