"""`osler finetune`, `osler merge` and `osler classify --head` as a user meets them."""

import json
import re
from pathlib import Path

import pytest

from osler.cli import main
from osler.models.lora import LoraConfig
from osler.training.finetune.merge import LIMITS
from osler.training.finetune.settings import FinetuneConfig
from tests.training.finetune.conftest import Table, table

__all__ = ["table"]  # the fixture


def test_from_a_folder_of_pictures_to_an_answer(
    medgemma_folder: Path, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, adapter, out = str(table(4)), str(tmp_path / "adapter"), str(tmp_path / "out")
    options = ["--epochs", "1", "--batch-size", "2", "--rank", "2", "--val", data]
    base = ["--model", str(medgemma_folder)]
    assert main(["finetune", *base, "--data", data, "--out", adapter, *options]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"wrote {adapter}: adapter; [\d,]+ weights learnt from 4 examples in 2 steps", said[0]
    )
    assert said[1] == "on 4 examples not learnt from:"
    assert re.fullmatch(r"  loss      before \d+\.\d{3}  after \d+\.\d{3}", said[2])
    assert re.fullmatch(r"  accuracy  before \d+\.\d%  after \d+\.\d%", said[3])
    assert said[4] == f"to use it: osler ask --model {adapter}, or osler merge {adapter} --out DIR"
    assert main(["merge", adapter, "--out", out]) == 0
    assert re.search(r"float32; no logit moved by more than [\d.e-]+ \(limit 0.001\)", _err(capsys))
    assert main(["ask", "What?", "--model", out, "--max-new-tokens", "2"]) == 0


def _err(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_a_classifier_of_ones_own(
    medsiglip_folder: Path, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = table(8), str(tmp_path / "out")
    options = ["--model", str(medsiglip_folder), "--data", str(data), "--val", str(data)]
    assert main(["finetune", *options, "--method", "probe", "--out", out]) == 0
    said = capsys.readouterr().out
    assert f"wrote {out}: classifier of bright, dark, from 8 images" in said
    assert "accuracy, cross-validated: 100.0%" in said
    assert "accuracy on 8 images not learnt from: 100.0%" in said
    assert main(["classify", str(data / "0.png"), "--head", out, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert set(result["probabilities"]) == {"bright", "dark"}
    assert result["probabilities"]["dark"] > 0.5


def test_json_is_the_whole_record(
    medgemma_folder: Path, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = str(table(4)), tmp_path / "out"
    options = ["--method", "qlora", "--epochs", "1", "--target-modules", "q_proj, v_proj"]
    base = ["--model", str(medgemma_folder)]
    assert main(["finetune", *base, "--data", data, "--out", str(out), *options, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "finetune.json").read_text())
    assert printed["method"] == "qlora"
    merged = ["merge", str(out), "--out", str(tmp_path / "merged"), "--json"]
    assert main(merged) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-3
    assert main([*merged[:3], str(tmp_path / "no"), "--limit", "0"]) == 1
    assert "more than 0; nothing is written" in _err(capsys)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--method", "probe", "--epochs", "3"], "a probe takes no other options"),
        (["--method", "full", "--rank", "3"], "go with lora and qlora"),
        (["--method", "dora"], "invalid choice: 'dora'"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["finetune", "--model", "nano", "--data", "x", "--out", "y", *options])
    assert stop.value.code == 2
    assert reason in _err(capsys)


@pytest.mark.parametrize("options", [[], ["--labels", "a,b", "--head", "c"]])
def test_labels_or_a_head(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["classify", "a.png", *options])
    assert stop.value.code == 2
    assert "either --labels or --head is needed" in _err(capsys)


def test_what_is_wrong_is_said_in_one_line(
    table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(4)
    (data / "labels.csv").write_text("image,finding\n0.png,a\n")
    for model, rows, reason in (
        ("nowhere", data, "nowhere: no such folder"),
        ("nano", data, "labels.csv, line 1: the columns must be image,label or"),
        ("nano", tmp_path / "none", "none: no such file or folder"),
    ):
        options = ["--model", model, "--data", str(rows), "--out", str(tmp_path / "out")]
        assert main(["finetune", *options]) == 1
        said = _err(capsys)
        assert reason in said
        assert said.count("\n") == 1


def test_the_help_tells_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    config, lora = FinetuneConfig(), LoraConfig()
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for value, words in (
        (config.epochs, "times each row is met; else {}"),
        (config.batch_size, "rows that go through together; else {}"),
        (config.accumulate, "such batches for each step; else {}"),
        (config.most_tokens, "a row may have, with its images; else {}"),
        (lora.rank, "of the adapter; else {}"),
        (lora.alpha, "the adapter counts alpha/rank; else {:.0f}"),
        (lora.dropout, "of the adapter's inputs; else {:.0f}"),
    ):
        assert words.format(value) in said
    with pytest.raises(SystemExit):
        main(["merge", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    exact, rounded = LIMITS.values()
    assert f"else {exact} in float32, {rounded} in bfloat16" in said
