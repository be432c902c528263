"""The command that measures the nanos, on models that know nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import osler
from osler.evaluation import learning_curve, nano
from osler.evaluation.embedded import decode
from osler.evaluation.interview import PARAMS, interview
from osler.evaluation.report import BEGIN, END
from osler.ingest.image_pack import PackedImage
from osler.testing.packs import one_of_each_class, write_image_pack


def in_groups(items: list[PackedImage]) -> list[PackedImage]:
    return [replace(item, key=f"{i}", group=f"group-{i}") for i, item in enumerate(items)]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    closed = [
        {"question": "Is it large", "answer": said, "answer_type": "CLOSED", "question_type": "ABN"}
        for said in ("Yes", "No", "yes", "no", "Yes")
    ]
    items = [
        replace(item, text=closed) if item.set_name == "vqa_rad" else item
        for item in one_of_each_class()
    ]
    write_image_pack(folder, "val", in_groups(items))
    write_image_pack(folder, "train", in_groups(items * 2))
    return folder


@pytest.fixture
def models(medgemma_folder: Path, medsiglip_folder: Path) -> list[str]:
    return ["--model", str(medgemma_folder), "--encoder", str(medsiglip_folder)]


@pytest.mark.slow
def test_one_run_gives_tables_json_pictures_and_the_card(
    pack: Path, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card, report = tmp_path / "CARD.md", tmp_path / "report.json"
    card.write_text(f"# Card\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")
    outputs = ["--out", str(report), "--card", str(card), "--plots", str(tmp_path / "plots")]
    assert nano.main(["--data", str(pack), *models, *outputs]) == 0
    text = capsys.readouterr().out
    assert card.read_text() == f"# Card\n\n{BEGIN}\n\n{text.strip()}\n\n{END}\n\nThe end.\n"
    assert str(tmp_path) not in text  # a model is named without where it lies
    for name in ("auc.png", "accuracy.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")

    sections = {
        part["title"]: part["figures"] for part in json.loads(report.read_text())["sections"]
    }
    of_encoder = {(f["name"], f["metric"], f["by"]): f for f in sections["The encoder"]}
    derm = "Dermoscopy, 7 classes (HAM10000)"
    for by in ("linear probe", "zero-shot"):
        assert of_encoder[derm, "AUC", by]["target"] == 0.92
        assert of_encoder[derm, "accuracy at the source's frequencies", by]["images"] == 7
    assert of_encoder[derm, "AUC", "zero-shot against linear probe"]["target"] == -0.05
    assert len({name for name, _, _ in of_encoder}) == 9
    # All images are alike, and so nothing can be told apart.
    assert of_encoder[derm, "AUC", "zero-shot"]["value"] == 0.5
    fundus = of_encoder["Fundus, 8 labels of an eye (ODIR-5K)", "accuracy", "zero-shot"]
    assert fundus["images"] == 9
    own = {
        figure["name"]: figure
        for figure in sections["Modality and body part in the model's own words"]
    }
    assert own["Modality and body part, all sets"]["images"] == 40
    assert all(figure["images"] <= 15 for figure in sections["Closed questions of VQA-RAD"])
    assert {figure["metric"] for figure in sections["Descriptions"]} == {"ROUGE-L", "label F1"}


def test_the_limit_is_of_each_set(
    pack: Path, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert nano.main(["--data", str(pack), "--limit", "2", "--json", *models]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["about"]["images of each set"] == "the first 2"
    figures = [figure for part in report["sections"][:1] for figure in part["figures"]]
    assert figures
    assert {figure["images"] for figure in figures} == {2}


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert nano.main(["--data", str(tmp_path), *models]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"osler: {tmp_path}: no image sets (*-val.tar) in this folder\n"


def test_answers_of_an_interview_are_those_alone(medgemma_folder: Path) -> None:
    assistant = osler.load(medgemma_folder)
    first, second, *_ = in_groups(one_of_each_class())
    asked = [(first, "What is this?"), (second, "Describe this image, please."), (first, "Hm?")]
    said = interview(assistant, [*asked, asked[0]])
    for item, question in asked:
        alone = assistant.ask(question, [decode(item)], max_new_tokens=PARAMS.max_new_tokens)
        assert said(item, question) == alone.text


@pytest.mark.slow
def test_the_learning_curve_of_several_encoders(
    pack: Path, medsiglip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(pack), "--encoder", str(medsiglip_folder)]
    assert learning_curve.main(arguments) == 0
    curves = json.loads(capsys.readouterr().out)[str(medsiglip_folder)]
    assert [point["images"] for point in curves["derm_ham10000"]] == [10, 14]
    assert [point["draws"] for point in curves["derm_ham10000"]] == [5, 1]
    assert all(point["auc"] == 0.5 for point in curves["derm_ham10000"])
