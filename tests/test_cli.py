"""The command line as a user meets it: output, files, exit codes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

import osler
from osler.cli import main

VERBS = (
    "ask classify deidentify embed finetune info listen look merge pull push quantize record "
    "result serve show train"
).split()
OSLER = [sys.executable, "-c", "import sys; from osler.cli import main; sys.exit(main())"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"example: osler {verb} " in capsys.readouterr().out


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert all(verb in listed for verb in VERBS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"osler {osler.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ([], "VERB"),
        (["sing"], "invalid choice: 'sing'"),
        (["ask"], "QUESTION"),
        (["ask", "?", "--temprature", "1"], "unrecognized arguments: --temprature"),
        (["ask", "?", "--squaring", "crop"], "invalid choice: 'crop'"),
        (["classify", "a.png"], "--labels"),
        (["classify", "a.png", "--labels", "one,"], "two or more"),
        (["embed", "a.png"], "--out"),
        (["info"], "MODEL"),
        (["show", "a.png", "--out", "seen.jpg"], "must end in .png"),
        (["info", "medgemma_4b", "medgemma_27b"], "unrecognized arguments: medgemma_27b"),
        (["show", "a.png", "b.png", "--out", "c.png"], "unrecognized arguments: b.png"),
    ],
)
def test_wrong_usage_exits_with_2(
    argv: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_file_in_the_place_of_the_question(
    picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["ask", str(picture)])
    assert stop.value.code == 2
    assert "the last argument is the question" in capsys.readouterr().err


def test_ask_prints_the_answer_and_the_notice(
    medgemma_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(medgemma_folder), "--max-new-tokens", "8"]
    assert main(["ask", str(picture), "What is shown?", *arguments]) == 0
    streams = capsys.readouterr()
    answer = osler.load(medgemma_folder).ask("What is shown?", [picture], max_new_tokens=8)
    assert streams.out == f"{answer}\n"
    assert "8 tokens" in streams.err


def test_ask_needs_no_image_and_takes_options_anywhere(
    medgemma_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(medgemma_folder), "--max-new-tokens", "4", "--json"]
    assert main(["ask", *options, "What is shown?"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["input_sha256"] == []
    assert main(["ask", str(picture), *options, str(picture), "What is shown?"]) == 0
    two = json.loads(capsys.readouterr().out)
    assert len(two["input_sha256"]) == 2


def test_ask_json_is_the_whole_answer(
    medgemma_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--temperature", "1", "--seed", "5", "--max-new-tokens", "6", "--json"]
    assert main(["ask", "Hello?", "--model", str(medgemma_folder), *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    answer = osler.load(medgemma_folder).ask("Hello?", temperature=1.0, seed=5, max_new_tokens=6)
    assert printed["text"] == answer.text
    assert printed["tokens"] == list(answer.tokens)
    assert printed["notice"] == answer.notice
    assert set(printed) >= {"thought", "timings", "model", "version", "finish_reason"}


def test_classify_prints_the_best_label_first(
    medsiglip_folder: Path, picture: Path, radiograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["--labels", "normal chest X-ray, pneumonia", "--model", str(medsiglip_folder)]
    assert main(["classify", str(picture), *labels, str(radiograph)]) == 0
    lines = capsys.readouterr().out.splitlines()
    results = osler.load_encoder(medsiglip_folder).classify(
        [picture, radiograph], ["normal chest X-ray", "pneumonia"]
    )
    for line, result in zip(lines, results, strict=False):
        source, first = line.split("   ", 1)
        assert source.strip() == result.source
        assert (
            first.split("   ")[0].strip()
            == f"{result.label} {result.probabilities[result.label]:.1%}"
        )
    assert lines[-1] == results[0].notice


def test_classify_json(
    medsiglip_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["--labels", "a,b,c", "--model", str(medsiglip_folder)]
    assert main(["classify", str(picture), *labels, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (result,) = printed["results"]
    assert sum(result["probabilities"].values()) == pytest.approx(1)
    assert printed["notice"].startswith("Random weights.")


def test_embed_writes_a_whole_file(
    medsiglip_folder: Path, picture: Path, radiograph: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e.npy"
    out.write_text("an older file")
    images = [str(picture), str(radiograph)]
    assert main(["embed", *images, "--out", str(out), "--model", str(medsiglip_folder)]) == 0
    rows = np.load(out)
    np.testing.assert_array_equal(rows, osler.load_encoder(medsiglip_folder).embed_images(images))
    assert [path.name for path in tmp_path.iterdir()] == ["e.npy"]


def test_a_failed_embed_leaves_the_older_file_alone(
    medsiglip_folder: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e.npy"
    out.write_text("an older file")
    images = [str(picture), str(tmp_path / "missing.png")]
    assert main(["embed", *images, "--out", str(out), "--model", str(medsiglip_folder)]) == 1
    assert out.read_text() == "an older file"
    assert [path.name for path in tmp_path.iterdir()] == ["e.npy"]


def test_info_prints_sizes_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "medgemma_4b"]) == 0
    printed = capsys.readouterr().out
    for expected in ("4,300,079,472", "896 x 896", "256 tokens each", "131,072", "8.0 GiB"):
        assert expected in printed


def test_info_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "medsiglip_448", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["family"] == "medsiglip"
    assert printed["cache_bytes"] == {}


def test_show_writes_what_the_model_gets(
    medgemma_folder: Path, radiograph: Path, tmp_path: Path
) -> None:
    out = tmp_path / "seen.png"
    arguments = ["--out", str(out), "--model", str(medgemma_folder)]
    assert main(["show", str(radiograph), *arguments]) == 0
    with Picture.open(out) as picture:
        seen = np.asarray(picture)
    assert seen.shape == (224, 224, 3)
    prompt = osler.load(medgemma_folder).stream("?", [radiograph]).prompt
    np.testing.assert_allclose(
        seen.transpose(2, 0, 1) / 127.5 - 1, np.asarray(prompt.pixels)[0], atol=1e-6
    )


def test_show_numbers_the_crops(medgemma_folder: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Picture.new("RGB", (900, 300), "gray").save(wide)
    out = tmp_path / "seen.png"
    arguments = ["--out", str(out), "--model", str(medgemma_folder), "--pan-and-scan"]
    assert main(["show", str(wide), *arguments]) == 0
    prompt = osler.load(medgemma_folder).stream("?", [wide], pan_and_scan=True).prompt
    written = sorted(path.name for path in tmp_path.glob("seen*"))
    assert written == [f"seen-{number + 1}.png" for number in range(len(prompt.pixels))]
    assert len(written) > 1


def _run_until_first_piece(folder: Path) -> subprocess.Popen[bytes]:
    arguments = ["--max-new-tokens", "8000", "--temperature", "1", "--seed", "0"]
    process = subprocess.Popen(
        [*OSLER, "ask", "Hello?", "--model", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    return process


def test_ctrl_c_ends_cleanly(medgemma_folder: Path) -> None:
    process = _run_until_first_piece(medgemma_folder)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.decode().strip() == "osler: interrupted"


def test_a_reader_that_leaves_is_no_error(medgemma_folder: Path) -> None:
    process = _run_until_first_piece(medgemma_folder)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert errors == b""
