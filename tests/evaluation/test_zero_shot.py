from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from osler.evaluation.naming import FINDINGS
from osler.evaluation.prompts import zero_shot_label, zero_shot_prompts
from osler.evaluation.zero_shot import zero_shot_figures
from osler.ingest.image import Image
from osler.ingest.image_pack import PackedImage
from osler.tasks.answer import Classification
from osler.testing.packs import one_of_each_class, packed_image

SETS = {
    *("cxr_kermany", "derm_ham10000", "fundus_odir512", "mri_brain_tumor", "histo_lc25000_lung"),
    *("ct_covid", "us_busi", "medpix2", "vqa_rad"),
}


class KeyedEncoder:
    """Takes each image for the label that its name is."""

    def classify(
        self, images: Sequence[Image], labels: Mapping[str, Sequence[str]], /
    ) -> list[Classification]:
        return [
            Classification(
                source=image.source,
                probabilities={label: float(image.source == f"{label}.webp") for label in labels},
                notice="",
            )
            for image in images
        ]


def test_every_set_has_prompts_and_no_prompt_serves_two_labels() -> None:
    prompts = zero_shot_prompts()
    assert set(prompts) == SETS
    for of_set in prompts.values():
        assert len(of_set) >= 2
        texts = [text for ensemble in of_set.values() for text in ensemble]
        assert len(texts) == len(set(texts))
        assert all(text and len(text.split()) <= 40 for text in texts)


def test_every_record_has_a_label_among_the_prompts_unless_several_fit() -> None:
    prompts = zero_shot_prompts()
    unlabelled = [item for item in one_of_each_class() if zero_shot_label(item) is None]
    assert [item.labels["eye"] for item in unlabelled] == [["D", "O"]]
    for item in one_of_each_class():
        label = zero_shot_label(item)
        assert label is None or label in prompts[item.set_name]


def test_the_usual_name_of_every_finding_is_a_prompt() -> None:
    for set_name, ensembles in zero_shot_prompts().items():
        for label, ensemble in ensembles.items():
            if set_name in FINDINGS:
                assert FINDINGS[set_name][label][0] in ensemble


def tumors(*said_and_true: tuple[str, str]) -> list[PackedImage]:
    """Images of a finding whose name makes the encoder take them for another."""
    return [
        replace(
            packed_image("mri_brain_tumor", "MR", "BRAIN", {"finding": true}),
            key=said,
            group=f"group-{i}",
        )
        for i, (said, true) in enumerate(said_and_true)
    ]


def test_balanced_accuracy_of_what_the_encoder_takes_images_for() -> None:
    items = tumors(("glioma", "glioma"), ("no_tumor", "glioma"), ("no_tumor", "no_tumor"))
    (figure,) = zero_shot_figures(KeyedEncoder(), items)
    assert figure.value == pytest.approx(0.75)
    assert (figure.images, figure.chance, figure.unscored) == (3, 0.25, 0)
    assert figure.name == "Zero-shot, mri_brain_tumor, 4 labels"


def test_eyes_are_also_measured_as_healthy_or_diabetic() -> None:
    eyes = [
        replace(packed_image("fundus_odir512", "OP", "EYE", {"eye": eye}), key=said)
        for said, eye in (("N", ["N"]), ("D", ["D"]), ("N", ["D"]), ("G", ["G"]), ("D", ["D", "O"]))
    ]
    everything, pair = zero_shot_figures(KeyedEncoder(), eyes)
    assert (everything.images, everything.chance) == (4, 1 / 8)
    assert everything.value == pytest.approx((1 + 0.5 + 1) / 3)
    assert pair.name == "Zero-shot, fundus_odir512, 2 labels (N / D)"
    assert (pair.images, pair.value) == (3, 0.75)
