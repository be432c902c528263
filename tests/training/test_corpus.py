import random
from pathlib import Path
from typing import Any

import pytest

from osler.errors import UnreadableFileError
from osler.testing.packs import write_text_pack
from osler.training.corpus import Sample, shorten, text_samples, without_blanks

ROWS: dict[str, list[dict[str, Any]]] = {
    "medquad": [
        {"question": "What is (are) Gout ?", "answer": "What is gout? Gout is a disease. " * 1},
        {"question": "What treats Gout ?", "answer": "These resources address gout: - A review"},
    ],
    "mts_dialog": [
        {
            "split": split,
            "section_header": "CC",
            "dialogue": f"Doctor: What is it?\r\nPatient: My {part}.",
            "section_text": f"Pain in the {part}.",
        }
        for split, part in (("train", "knee"), ("val", "hip"))
    ],
    "aci_bench": [{"split": "train", "note": "ASSESSMENT The knee is sore."}],
    "pubmedqa_train": [
        {
            "question": "Does it help?",
            "contexts": ["We asked.", "It helped."],
            "long_answer": "It seems so.",
            "decision": "maybe",
        }
    ],
    "iu_xray_reports": [
        {
            "indication": "XXXX pain.",
            "findings": "The heart is normal. There are no XXXX of effusion. Lungs are clear.",
            "impression": "1. No XXXX change. 2. Normal chest.",
        },
        {"findings": "The lungs are clear.", "impression": "XXXX."},
    ],
    "mediqa2019_train": [
        {"kind": "question_entailment", "entails": False, "question_a": "A?", "question_b": "B?"},
        {"kind": "question_entailment", "entails": True, "question_a": "C?", "question_b": "C?"},
        {
            "kind": "ranked_answers",
            "question": "D?",
            "answers": [
                {"reference_rank": 2, "text": "Second."},
                {"reference_rank": 1, "text": "First."},
            ],
        },
    ],
    "medpix_cases_train": [
        {
            "history": "Fell.",
            "findings": "A gap in the bone.",
            "diagnosis": "Fracture",
            "topic": "Fracture",
            "topic_discussion": "Bones break.",
        }
    ],
    "bioner_train": [
        {
            "corpus": "NCBI-disease",
            "text": "Parkinson ' s disease ( PD ) is not X - linked .",
            "entities": [
                {"type": "Disease", "text": "Parkinson ' s disease"},
                {"type": "Disease", "text": "PD"},
            ],
        }
    ],
}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    for name, rows in ROWS.items():
        write_text_pack(tmp_path, name, rows)
    return tmp_path


def samples(pack: Path, **options: Any) -> list[Sample]:
    return list(text_samples(pack, "train", random.Random(0), **options))


def test_each_text_becomes_questions_with_answers(pack: Path) -> None:
    by_answer = {answer: prompt for prompt, answer in samples(pack) if prompt is not None}
    assert by_answer["Gout is a disease."] == "What is Gout?"
    assert by_answer["Pain in the knee."].endswith("\n\nDoctor: What is it?\nPatient: My knee.")
    assert "chief complaint" in by_answer["Pain in the knee."]
    assert by_answer["Maybe. It seems so."] == "It helped.\n\nQuestion: Does it help?"
    assert by_answer["No."].endswith("1. A?\n2. B?")
    assert by_answer["First."] == "D?"
    assert by_answer["Fracture."].endswith("History: Fell.\nFindings: A gap in the bone.")
    assert "Parkinson's disease (PD) is not X-linked." in by_answer["Parkinson's disease; PD"]


def test_rows_that_teach_nothing_are_left_out(pack: Path) -> None:
    told = samples(pack)
    assert not any("These resources" in answer for _, answer in told)
    assert not any(prompt is not None and "C?" in prompt for prompt, _ in told)


def test_other_splits_are_not_read(pack: Path) -> None:
    assert not any("hip" in answer for _, answer in samples(pack))
    val = list(text_samples(pack, "val", random.Random(0)))
    assert [answer for _, answer in val] == ["Pain in the hip."]


def test_blanked_sentences_do_not_appear(pack: Path) -> None:
    told = samples(pack)
    assert not any("XXXX" in f"{prompt}{answer}" for prompt, answer in told)
    plain = [answer for prompt, answer in told if prompt is None]
    assert (
        "Chest X-ray. Findings: The heart is normal. Lungs are clear. Impression: Normal chest."
        in plain
    )
    assert "Chest X-ray. Findings: The lungs are clear." in plain


def test_blanks_take_the_numbering_with_them_and_nothing_else() -> None:
    assert without_blanks("1. Clear. 2. Normal.") == "1. Clear. 2. Normal."
    assert without_blanks("1. Clear lungs. 2. XXXX is seen.") == "Clear lungs."


def test_answers_end_with_a_sentence_within_the_bound(pack: Path) -> None:
    assert shorten("One is here. Two is here. Three.", 26) == "One is here. Two is here."
    assert shorten("A first sentence that is far too long. Short.", 20) == ""
    for prompt, answer in samples(pack, answer_chars=12):
        assert prompt is None or len(answer) <= 12


def test_plain_text_comes_in_pieces(pack: Path) -> None:
    write_text_pack(pack, "aci_bench", [{"note": "The knee is sore today. " * 200}])
    pieces = [text for prompt, text in samples(pack) if prompt is None and "sore" in text]
    assert len(pieces) >= 4
    assert all(len(text) <= 1000 and text.endswith("today.") for text in pieces)


def test_a_missing_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="medquad"):
        samples(tmp_path)
