"""What is scored of answers in words: classes, closed questions, descriptions."""

from dataclasses import replace

import numpy as np
import pytest

from osler.evaluation.caption_figures import (
    DESCRIPTIONS,
    LABEL_F1,
    NEIGHBOUR,
    ROUGE_L,
    caption_figures,
    caption_questions,
    known_labels,
    named_labels,
    reference,
)
from osler.evaluation.class_answers import ANSWERS, class_answer_figures, class_questions
from osler.evaluation.class_task import class_task
from osler.evaluation.closed_questions import (
    MAJORITY,
    MODEL,
    WORDS,
    ClosedQuestion,
    closed_question_figures,
    closed_questions,
    closed_requests,
)
from osler.evaluation.embedded import EmbeddedImages
from osler.evaluation.encoder_figures import PROBE, ZERO_SHOT, Told, encoder_figures
from osler.evaluation.figure import Figure
from osler.evaluation.subgroups import subgroup_figures
from osler.ingest.image_pack import PackedImage
from osler.testing.packs import one_of_each_class, packed_image


def of_set(name: str) -> list[PackedImage]:
    items = [item for item in one_of_each_class() if item.set_name == name]
    return [replace(item, key=f"{i}", group=f"group-{i}") for i, item in enumerate(items)]


def by_name(figures: object) -> dict[tuple[str, str], Figure]:
    return {(figure.metric, figure.by): figure for figure in figures}  # type: ignore[attr-defined]


def told(items: list[PackedImage], probe: list[list[float]]) -> Told:
    task = class_task(items[0].set_name, items)
    chance = np.full(task.truth_NC.shape, 1 / len(task.labels))
    return Told(
        task=task,
        probabilities={PROBE: np.array(probe), ZERO_SHOT: chance},
        train_counts=dict.fromkeys(task.labels, 10),
        strength=1.0,
    )


def test_of_an_eye_with_several_labels_any_is_right() -> None:
    eyes = [item for item in of_set("fundus_odir512") if item.labels["eye"] in (["N"], ["D", "O"])]
    task = class_task("fundus_odir512", eyes)
    assert task.truth_NC.sum(axis=1).tolist() == [1, 2]
    columns = [task.labels.index("N"), task.labels.index("O")]
    figures = by_name(encoder_figures(told(eyes, np.eye(8)[columns].tolist())))
    assert figures["accuracy", PROBE].value == 1
    assert figures["accuracy", ZERO_SHOT].value == 0.5  # the first label, which is N
    assert figures["AUC", f"{ZERO_SHOT} against {PROBE}"].value == pytest.approx(0.5 - 5 / 6)
    assert ("balanced accuracy", PROBE) not in figures


def test_the_source_s_frequencies_weigh_recalls_and_choices() -> None:
    moles = [item for item in of_set("derm_ham10000") if item.labels["dx"] in ("nv", "mel")]
    # Both are held for melanoma, the mole less so; at the source moles are six times as many.
    probe = [[0.4, 0.6, 0, 0, 0, 0, 0], [0.1, 0.9, 0, 0, 0, 0, 0]]
    figures = by_name(encoder_figures(told(moles, probe)))
    metric = "accuracy at the source's frequencies"
    assert figures["accuracy", PROBE].value == 0.5
    assert figures[metric, PROBE].value == pytest.approx(1113 / (6705 + 1113))
    assert figures[metric, f"{PROBE} with the source's frequencies"].value == 1
    assert figures[metric, PROBE].target == 0.754
    assert figures[metric, PROBE].reached is False


def test_classes_named_in_words_are_set_beside_the_encoder_s() -> None:
    brains = of_set("mri_brain_tumor")
    answers = ["A glioma.", "A glioma or a meningioma.", "Something.", "No sign of a tumor."]
    said = dict(zip([item.key for item in brains], answers, strict=True))
    assert [item for item, _ in class_questions(brains)] == brains
    of_encoder = [told(brains, np.eye(4).tolist())]
    figures = by_name(
        class_answer_figures(
            lambda item, _: said[item.key], {"mri_brain_tumor": brains}, of_encoder
        )
    )
    assert figures["accuracy", ANSWERS].value == 0.5
    assert figures["accuracy", ANSWERS].unscored == 2
    against = figures["accuracy", f"{ANSWERS} against {PROBE}"]
    assert (against.value, against.target, against.reached) == (-0.5, -0.05, False)


def question(text: str, kind: str, answer: str, group: str) -> ClosedQuestion:
    item = replace(of_set("vqa_rad")[0], key=group, group=group)
    return ClosedQuestion(item=item, text=text, kind=kind, answer=answer)


def test_closed_questions_are_read_and_asked_as_questions() -> None:
    entry = {"question": " Is it  large", "answer": "Yes", "answer_type": "CLOSED"}
    text = [entry | {"question_type": "SIZE"}, entry | {"answer_type": "OPEN"}]
    items = [replace(of_set("vqa_rad")[0], text=text), *of_set("cxr_kermany")]
    (asked,) = closed_questions(items)
    assert (asked.text, asked.kind, asked.answer) == ("Is it large?", "SIZE", "yes")
    assert list(closed_requests([asked])) == [(items[0], "Is it large?")]


@pytest.mark.parametrize(
    ("answer", "said", "right"),
    [
        ("yes", "Yes, it is.", True),
        ("yes", "There is.", False),
        ("no", "No.", True),
        ("left side", "The left.", True),
        ("white matter", "Gray matter", False),
    ],
)
def test_which_answers_are_right(answer: str, said: str, right: bool) -> None:
    assert question("Which?", "POS", answer, "a").is_right(said) is right


def test_baselines_know_words_and_types_of_questions_only() -> None:
    texts = {"Is the heart large?": "no", "Is this an axial image?": "yes"}
    learnt = [
        question(text, "SIZE" if answer == "no" else "PLANE", answer, f"train-{i}")
        for i in range(12)
        for text, answer in texts.items()
    ]
    asked = [
        question("Is the heart large?", "PLANE", "no", "val-1"),
        question("Is this an axial image?", "PLANE", "yes", "val-2"),
    ]
    figures = {
        (figure.name, figure.by): figure
        for figure in closed_question_figures(lambda item, text: "Yes.", learnt, asked)
    }
    every = "VQA-RAD, all closed questions"
    assert figures[every, MODEL].value == 0.5
    assert figures[every, WORDS].value == 1
    assert figures[every, MAJORITY].value == 0.5
    gain = figures[every, f"{MODEL} against {WORDS}"]
    assert (gain.value, gain.clearly, gain.reached) == (-0.5, True, False)


def test_captions_of_neighbours_are_those_of_the_nearest_training_image() -> None:
    chests = of_set("cxr_kermany")
    normal, pneumonia = chests[0], chests[1]
    train = EmbeddedImages(items=[pneumonia, normal], vectors_ND=np.eye(2, dtype=np.float32))
    val = EmbeddedImages(items=[normal], vectors_ND=np.array([[0.9, 0.1]], np.float32))
    ((item, asked),) = caption_questions([normal])
    figures = by_name(
        caption_figures(
            lambda item, _: "This is a chest X-ray. No pneumonia is seen.",
            {"cxr_kermany": train},
            {"cxr_kermany": val},
        )
    )
    assert item is normal
    assert asked == "Describe this image."
    assert reference(normal) == "chest X-ray showing no pneumonia"
    assert figures[LABEL_F1, DESCRIPTIONS].value == 1
    assert figures[LABEL_F1, NEIGHBOUR].value == pytest.approx(2 / 3)
    assert figures[ROUGE_L, DESCRIPTIONS].value == pytest.approx(2 * 5 / (6 + 10))
    assert figures[LABEL_F1, f"{DESCRIPTIONS} against {NEIGHBOUR}"].reached is True


def test_labels_of_teaching_cases_are_the_findings_of_their_captions() -> None:
    case = of_set("medpix2")[0]
    assert reference(case) == case.text
    assert len(known_labels(case)) == 3  # CT, chest, a mass
    assert named_labels(case, "A chest CT. There are masses.") == known_labels(case)
    assert len(named_labels(case, "An MRI of the brain.") & known_labels(case)) == 0


def test_subgroups_need_twenty_images() -> None:
    ages = [30, 39, 40, None] * 20
    skin = [
        packed_image("derm_ham10000", "XC", "SKIN", {"dx": dx}, group=f"{i}", meta=meta)
        for i, age in enumerate(ages)
        for dx in (("nv", "mel")[i % 2],)
        for meta in ({"sex": "female", "age": age} if age else {"sex": "unknown"},)
    ]
    probe = np.eye(7)[[i % 2 for i in range(80)]].tolist()
    figures = {
        (figure.name.rpartition(": ")[2], figure.metric): figure
        for figure in subgroup_figures(told(skin, probe), skin)
        if figure.by == PROBE
    }
    assert {name for name, _ in figures} == {"aged 0 to 39", "aged 40 to 59", "female"}
    assert figures["aged 0 to 39", "AUC"].images == 40
    assert figures["female", "accuracy"].images == 60
