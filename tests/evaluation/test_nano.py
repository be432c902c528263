import json
from pathlib import Path

import pytest

import osler
from osler.evaluation import nano
from osler.ingest.read import read_image_bytes
from osler.testing.packs import one_of_each_class, write_image_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    write_image_pack(folder, "val", one_of_each_class())
    return folder


@pytest.fixture
def models(medgemma_folder: Path, medsiglip_folder: Path) -> list[str]:
    return ["--model", str(medgemma_folder), "--encoder", str(medsiglip_folder)]


def test_the_command_prints_a_table_of_all_figures(
    pack: Path, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert nano.main(["--data", str(pack), "--limit", "3", *models]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("| What | Metric | Value |")
    assert all(row.count("|") == rows[0].count("|") for row in rows)
    names = {row.split("|")[1].strip() for row in rows[2:]}
    assert {
        "Zero-shot, cxr_kermany, 2 labels (normal / pneumonia)",
        "Zero-shot, derm_ham10000, 7 labels",
    } <= names
    assert "Modality and body part, all sets" in names
    assert "Pneumonia or normal, from the free answer" in names


def test_the_command_prints_json_and_keeps_to_the_limit(
    pack: Path, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert nano.main(["--data", str(pack), "--limit", "1", "--json", *models]) == 0
    figures = {figure["name"]: figure for figure in json.loads(capsys.readouterr().out)}
    assert figures["Zero-shot, derm_ham10000, 7 labels"]["images"] == 1
    assert figures["Modality and body part, all sets"]["images"] == 9


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert nano.main(["--data", str(tmp_path), *models]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"osler: {tmp_path}: no image sets (*-val.tar) in this folder\n"


def test_answers_in_a_batch_are_those_alone(medgemma_folder: Path) -> None:
    assistant = osler.load(medgemma_folder)
    items = one_of_each_class()[:3]
    questions = ["What is this?", "Describe this image in detail, please.", "Hm?"]
    together = nano.batch_answerer(assistant)(items, questions)
    for item, question, answer in zip(items, questions, together, strict=True):
        image = read_image_bytes(item.image_bytes, "image.webp")
        alone = assistant.ask(question, [image], max_new_tokens=nano.PARAMS.max_new_tokens)
        assert answer == alone.text
