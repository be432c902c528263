"""`osler pull`, `push`, `listen` and `result`, as a user meets them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from osler.cli import main
from tests.archive.studies import STUDY, data_sets, make_instance, write_study
from tests.archive.test_results import write_answer
from tests.archive.web_archive import TinyWebArchive

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

OSLER = [sys.executable, "-c", "import sys; from osler.cli import main; sys.exit(main())"]


def test_pushed_and_pulled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "in", 4)
    out = str(tmp_path / "out")
    with TinyWebArchive() as archive:
        assert main(["push", "--check", "--to", archive.url]) == 0
        assert capsys.readouterr().err == f"{archive.url} answers\n"
        assert main(["push", str(tmp_path / "in"), "--to", archive.url]) == 0
        assert capsys.readouterr().err == f"{archive.url} has 4 instances of 1 study\n"
        assert main(["pull", archive.url, "--accession", "A1", "--list"]) == 0
        assert capsys.readouterr().out.startswith(f"{STUDY}   20240102")
        query = ["--query", f"StudyInstanceUID={STUDY}", "--query", "Modality=CT"]
        assert main(["pull", archive.url, *query, "--out", out, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said == {"folder": out, "studies": [STUDY], "fetched": 4, "kept": 0}
        assert main(["pull", archive.url, "--study", STUDY, "--out", out]) == 0
        assert "0 instances fetched, 4 were there" in capsys.readouterr().err
    assert data_sets(tmp_path / "out") == data_sets(tmp_path / "in")


def test_what_goes_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = ["pull", "http://127.0.0.1:1", "--study", "1.2", "--attempts", "1"]
    assert main([*gone, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("osler: http://127.0.0.1:1: out of reach")
    assert said.count("\n") == 1
    assert main([*gone, "--list", "--token-env", "NO_SUCH_TOKEN"]) == 1
    assert "NO_SUCH_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["pull", "A@b:1", "--out", "x"], "what to fetch"),
        (["pull", "A@b:1", "--study", "1.2"], "--out is needed"),
        (["pull", "A@b:1", "--query", "PatientID", "--out", "x"], "KEYWORD=VALUE"),
        (["push", "--to", "A@b:1"], "what to send"),
        (["listen", "--out", "x", "--key", "k.pem"], "TLS needs --cert"),
        (["result", "a.json", "--out", "x"], "--source"),
    ],
)
def test_wrong_usage(argv: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert reason in capsys.readouterr().err


def test_an_open_line_to_another_machine_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osler.archive.classic.ClassicArchive.check", lambda self: None)
    for more, warned in (([], True), (["--tls"], False)):
        assert main(["push", "--to", "PACS@pacs.example:104", "--check", *more]) == 0
        assert ("not encrypted" in capsys.readouterr().err) is warned


def test_a_listener_until_it_is_told_to_end(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(make_instance(1))
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--port", "0", "--quiet", "0.3", "--run", "test -d"]
    process = subprocess.Popen(
        [*OSLER, "listen", *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        ready = process.stderr.readline()
        assert ready.startswith("OSLER listens on 127.0.0.1:")
        address = ready.split()[-1]
        assert main(["push", str(tmp_path / "a.dcm"), "--to", f"OSLER@{address}"]) == 0
        said = json.loads(process.stdout.readline())  # a line for each study, as it comes
        assert said == {"folder": str(out / STUDY), "instances": 1, "exit_code": 0}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
    assert data_sets(out) == data_sets(tmp_path / "a.dcm")


def test_results_of_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.dcm"
    source.write_bytes(make_instance(1))
    answer = write_answer(tmp_path / "answer.json", source)
    arguments = ["result", str(answer), "--source", str(source), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    files = [str(tmp_path / "out" / name) for name in ("report.dcm", "report-pdf.dcm")]
    assert capsys.readouterr().out.split() == files
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"study": STUDY, "files": files}
