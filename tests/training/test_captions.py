import random
import re
from collections import Counter, defaultdict

import pytest

from osler.evaluation.naming import FINDINGS, study_path
from osler.evaluation.own_words import (
    FREE_QUESTIONS,
    names_body_part,
    names_modality,
    tells_pneumonia,
)
from osler.evaluation.prompts import zero_shot_label, zero_shot_prompts
from osler.ingest.image_pack import PackedImage
from osler.testing.packs import one_of_each_class, packed_image
from osler.training import phrases
from osler.training.captions import (
    class_key,
    contrastive_caption,
    describe,
    instruction_pairs,
    is_true_of,
)

ITEMS = one_of_each_class()
KNOWN = [item for item in ITEMS if item.modality != "OT"]


def captions_of(item: PackedImage, count: int = 80) -> list[tuple[str, str]]:
    return [contrastive_caption(item, random.Random(seed)) for seed in range(count)]


def pairs_of(item: PackedImage, count: int = 60) -> list[tuple[str, str]]:
    return [pair for seed in range(count) for pair in instruction_pairs(item, random.Random(seed))]


def test_the_class_key_goes_from_coarse_to_fine() -> None:
    virus = packed_image(
        "cxr_kermany", "CR", "CHEST", {"finding": "pneumonia", "pathogen": "virus"}
    )
    assert class_key(virus) == "CR/CHEST/cxr_kermany/pneumonia/virus"
    tumor = packed_image("mri_brain_tumor", "MR", "BRAIN", {"finding": "glioma"})
    assert class_key(tumor) == "MR/HEAD/mri_brain_tumor/glioma"
    eye = packed_image("fundus_odir512", "OP", "EYE", {"eye": ["D", "H"]})
    assert class_key(eye) == "OP/EYE/fundus_odir512/D+H"


def test_a_key_matches_whole_steps_only() -> None:
    assert is_true_of("MR/HEAD", "MR/HEAD/mri_brain_tumor/glioma")
    assert is_true_of("a/b", "a/b")
    assert not is_true_of("OP/EYE/fundus_odir512/D", "OP/EYE/fundus_odir512/D+H")
    assert not is_true_of("a/b/c", "a/b")


@pytest.mark.parametrize("item", ITEMS, ids=class_key)
def test_captions_are_short_varied_and_true_of_their_image(item: PackedImage) -> None:
    captions = captions_of(item)
    assert len({text for text, _ in captions}) >= 3
    for text, key in captions:
        assert 0 < len(text.split()) <= 40
        assert "{" not in text
        assert is_true_of(key, class_key(item))


def test_a_caption_without_the_pathogen_is_true_of_both_pneumonias() -> None:
    bacteria, virus = ITEMS[1], ITEMS[2]
    for text, key in captions_of(bacteria):
        names_pathogen = "bacterial" in text
        assert is_true_of(key, class_key(virus)) == (not names_pathogen)


def test_a_caption_of_the_study_alone_is_true_of_every_such_study() -> None:
    for item in ITEMS:
        words = [
            name.lower() for names in FINDINGS.get(item.set_name, {}).values() for name in names
        ]
        for text, key in captions_of(item):
            if key == study_path(item):
                assert not any(word in text.lower() for word in words)


@pytest.mark.parametrize("item", KNOWN, ids=class_key)
def test_every_description_names_modality_and_body_part_as_they_are_scored(
    item: PackedImage,
) -> None:
    for seed in range(60):
        text = describe(item, random.Random(seed))
        assert names_modality(text, item.modality), text
        assert names_body_part(text, item.body_part), text


def test_a_scan_of_unknown_modality_is_not_given_one() -> None:
    unknown = next(item for item in ITEMS if item.modality == "OT")
    for question, answer in pairs_of(unknown):
        assert not names_modality(answer, "CT") or "brain" not in answer, question
        assert not names_modality(answer, "MR"), question


def test_descriptions_tell_pneumonia_as_it_is_scored() -> None:
    normal, bacteria, virus = ITEMS[:3]
    for seed in range(100):
        assert tells_pneumonia(describe(normal, random.Random(seed))) is False
        assert tells_pneumonia(describe(bacteria, random.Random(seed))) is True
        assert tells_pneumonia(describe(virus, random.Random(seed))) is True


@pytest.mark.parametrize("item", ITEMS, ids=class_key)
def test_nothing_invisible_is_told(item: PackedImage) -> None:
    told = " ".join(
        [text for text, _ in captions_of(item)]
        + [f"{question} {answer}" for question, answer in pairs_of(item)]
    ).lower()
    for word in ("histo ", "85", "72", "62", "female", "scalp", "sarcoidosis", "lens dust"):
        assert word not in told
    assert "follow-up" not in told


@pytest.mark.parametrize("item", ITEMS, ids=class_key)
def test_questions_come_with_whole_answers_description_first(item: PackedImage) -> None:
    for seed in range(30):
        pairs = instruction_pairs(item, random.Random(seed))
        assert len(pairs) >= 3
        for question, answer in pairs:
            assert question.strip() == question != ""
            assert answer[-1] in ".?!"
            assert answer[0] == answer[0].upper()
            assert "{" not in question + answer


def test_the_same_generator_makes_the_same_pairs() -> None:
    for item in ITEMS:
        assert instruction_pairs(item, random.Random(7)) == instruction_pairs(
            item, random.Random(7)
        )


def test_lettered_answers_are_among_their_options_and_right() -> None:
    melanoma = next(item for item in ITEMS if item.labels.get("dx") == "mel")
    lettered = [(q, a) for q, a in pairs_of(melanoma) if "options:" in q.lower()]
    assert lettered
    for question, answer in lettered:
        assert answer.removesuffix(".").lower() in question.lower()
        assert answer.endswith(" melanoma.")
    assert len({answer[0] for _, answer in lettered}) >= 3


def test_yes_and_no_are_equally_often_right_for_each_finding() -> None:
    rng = random.Random(0)
    counts = phrases.CLASS_COUNTS["cxr_kermany"]
    said: dict[str, Counter[bool]] = defaultdict(Counter)
    normal, bacteria = ITEMS[:2]
    items = [normal] * counts["normal"] + [bacteria] * counts["pneumonia"]
    for item in items:
        for question, answer in instruction_pairs(item, rng):
            if re.match(r"(Yes|No)[,.](?! this is )", answer):
                asked = "pneumonia" if "pneumonia" in question.lower() else "normal"
                said[asked][answer.startswith("Yes")] += 1
    for answers in said.values():
        assert answers.total() > 500
        assert answers[True] / answers.total() == pytest.approx(0.5, abs=0.06)


def test_every_kind_of_question_is_asked_in_six_ways_at_least() -> None:
    kinds = [
        *(phrases.DESCRIBE, phrases.STUDY, phrases.MODALITY, phrases.BODY_PART, phrases.FINDING),
        *(phrases.IS_THIS, phrases.IS_THIS_PART, phrases.IS_THERE, phrases.CHOICE),
        phrases.EITHER_OR,
    ]
    assert all(len(set(forms)) >= 6 for forms in kinds)
    assert FREE_QUESTIONS[0] in {form.format(noun="image") for form in phrases.DESCRIBE}
    trained = {form.format(noun="image").lower() for forms in kinds[:5] for form in forms}
    assert trained.isdisjoint(question.lower() for question in FREE_QUESTIONS[1:])


def test_captions_use_the_words_of_the_zero_shot_prompts() -> None:
    prompts = zero_shot_prompts()
    for item in ITEMS:
        label = zero_shot_label(item)
        if item.set_name in FINDINGS and label is not None:
            texts = {text for text, _ in captions_of(item, count=600)}
            assert texts & set(prompts[item.set_name][label]), class_key(item)


def test_vqa_questions_are_kept_with_their_answers() -> None:
    chest = next(item for item in ITEMS if item.set_name == "vqa_rad")
    pairs = {(q.lower().rstrip("?"), a) for q, a in pairs_of(chest)}
    assert ("is the heart enlarged", "No.") in pairs
    assert ("what plane is this", "PA.") in pairs
