from collections.abc import Sequence
from dataclasses import replace

import pytest

from osler.evaluation.class_task import TITLES
from osler.evaluation.figure import Figure
from osler.evaluation.own_words import (
    FREE_QUESTIONS,
    PNEUMONIA_QUESTION,
    names_body_part,
    names_modality,
    own_words_figures,
    own_words_questions,
    pneumonia_figures,
    says_yes,
    tells_pneumonia,
)
from osler.ingest.image_pack import PackedImage
from osler.testing.packs import packed_image


@pytest.mark.parametrize(
    ("answer", "modality"),
    [
        ("This is a chest X-ray.", "CR"),
        ("Frontal chest x ray of a child", "CR"),
        ("AP radiograph.", "CR"),
        ("Axial CT of the head", "CT"),
        ("A T2-weighted MR image", "MR"),
        ("Magnetic resonance imaging of the brain", "MR"),
        ("Breast ultrasonography", "US"),
        ("A dermatoscopic picture of a mole", "XC"),
        ("Photograph of a skin lesion", "XC"),
        ("Retinal fundus photograph", "OP"),
        ("H&E stained histopathology", "SM"),
    ],
)
def test_modalities_are_recognised_and_only_they(answer: str, modality: str) -> None:
    named = [
        name for name in ("CR", "CT", "MR", "US", "XC", "OP", "SM") if names_modality(answer, name)
    ]
    assert named == [modality]


@pytest.mark.parametrize(
    "answer",
    ["An image of the chest.", "An X-ray or a CT scan.", "Contact the doctor.", "Detected."],
)
def test_vague_or_contradictory_modalities_are_wrong(answer: str) -> None:
    assert not names_modality(answer, "CR")
    assert not names_modality(answer, "CT")


@pytest.mark.parametrize(
    ("answer", "body_part"),
    [
        ("A chest X-ray with clear lungs", "CHEST"),
        ("CT scan of the lungs", "CHEST"),
        ("Histology of lung tissue", "LUNG"),
        ("An MRI of the brain", "BRAIN"),
        ("MRI of the head and neck", "HEAD"),
        ("CT of the abdomen and pelvis", "PELVIS_GU"),
        ("CT of the abdomen and pelvis", "ABDOMEN"),
        ("MRI of the lumbar spine", "SPINE_MSK"),
        ("A skin lesion", "SKIN"),
        ("Retinal photograph", "EYE"),
        ("The breast", "BREAST"),
    ],
)
def test_body_parts_are_recognised(answer: str, body_part: str) -> None:
    assert names_body_part(answer, body_part)


@pytest.mark.parametrize(
    ("answer", "body_part"),
    [
        ("An MRI.", "BRAIN"),
        ("An MRI of the spine; the brain is not shown", "BRAIN"),
        ("A chest, brain, skin, eye or breast image", "EYE"),
        ("CT of the abdomen", "PELVIS_GU"),
        ("X-ray of the chest", "LUNG"),
    ],
)
def test_wrong_or_scattered_body_parts_are_wrong(answer: str, body_part: str) -> None:
    assert not names_body_part(answer, body_part)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("There are opacities consistent with bacterial pneumonia.", True),
        ("Findings suggest pneumonia, likely viral. The heart is not enlarged.", True),
        ("No sign of pneumonia is seen.", False),
        ("A normal chest X-ray.", False),
        ("The lungs are clear, without pneumonia.", False),
        ("No effusion, pneumothorax or focal pneumonia.", False),
        ("The heart is not enlarged, pneumonia is present.", True),
        ("Not normal: pneumonia.", True),
        ("Abnormal, with pneumonia", True),
        ("A chest X-ray.", None),
        ("A normal chest X-ray with pneumonia.", None),
        ("", None),
    ],
)
def test_what_a_description_tells_of_pneumonia(answer: str, told: bool | None) -> None:
    assert tells_pneumonia(answer) is told


@pytest.mark.parametrize(
    ("answer", "yes"),
    [("Yes, there is.", True), (" **No**", False), ("Nothing is seen", None), ("Maybe", None)],
)
def test_yes_and_no_are_read_from_the_first_word(answer: str, yes: bool | None) -> None:
    assert says_yes(answer) is yes


def chests_and_brains() -> list[PackedImage]:
    items = [
        packed_image("cxr_kermany", "CR", "CHEST", {"finding": finding})
        for finding in ("normal", "normal", "pneumonia", "pneumonia")
    ]
    items += [packed_image("mri_brain_tumor", "MR", "BRAIN", {"finding": "glioma"})] * 2
    items.append(packed_image("vqa_rad", "OT", "HEAD", {"organ": "HEAD"}))
    return [replace(item, key=f"{i}", group=f"group-{i}") for i, item in enumerate(items)]


def figures_of(free: Sequence[str], yes_no: Sequence[str]) -> dict[str, Figure]:
    items = chests_and_brains()
    asked = list(own_words_questions(items))
    freely = [request for request in asked if request[1] != PNEUMONIA_QUESTION]
    assert [question for _, question in freely] == [*FREE_QUESTIONS, *FREE_QUESTIONS]
    directly = [request for request in asked if request[1] == PNEUMONIA_QUESTION]
    answers = {
        (item.key, question): said
        for (item, question), said in zip([*freely, *directly], [*free, *yes_no], strict=True)
    }

    def said(item: PackedImage, question: str) -> str:
        return answers[item.key, question]

    figures = [*own_words_figures(said, items), *pneumonia_figures(said, items)]
    return {figure.name: figure for figure in figures}


def test_free_answers_are_scored_over_all_and_set_by_set() -> None:
    figures = figures_of(
        [
            "A chest X-ray. The lungs are clear.",
            "A chest X-ray with pneumonia.",
            "A chest X-ray with pneumonia.",
            "A chest X-ray.",
            "An MRI of the brain.",
            "A CT of the brain.",
        ],
        ["No.", "No.", "Yes.", "Perhaps."],
    )
    overall = figures["Modality and body part, all sets"]
    assert overall.value == pytest.approx(5 / 6)
    assert overall.images == 6  # the scan of unknown modality is left out
    assert figures[TITLES["cxr_kermany"]].value == 1
    assert figures[TITLES["mri_brain_tumor"]].value == 0.5
    # The last question of the three went to images 2 and 5.
    third = figures[f'asked "{FREE_QUESTIONS[2]}"']
    assert (third.value, third.images) == (0.5, 2)
    free = figures["Pneumonia or normal, from the free answer"]
    assert (free.value, free.unscored, free.chance) == (0.5, 1, 0.5)
    direct = figures[f'Pneumonia or normal, asked "{PNEUMONIA_QUESTION}"']
    assert (direct.value, direct.unscored) == (0.75, 1)
