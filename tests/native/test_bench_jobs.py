"""The benches of whole jobs run; what they measure means nothing at this size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.jobs import JOBS
from bench.proof_report import measured
from bench.random_model import model_config, write_model
from osler.native.library import library

ROOT = Path(__file__).parents[2]
TOKENS = {"copy": (), "second": ("--tokens", "300")}

pytestmark = pytest.mark.skipif(library() is None, reason="no native engine here")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, model_config("tiny", 56), "int4", "int8")
    return folder


@pytest.mark.parametrize("job", JOBS)
def test_every_job_runs(model: Path, job: str) -> None:
    options = ["--repeat", "1", "--no-warm-up", "--new-tokens", "3"]
    command = [sys.executable, "-m", "bench.jobs", job, "--model", str(model), *options]
    more = TOKENS.get(job, ("--tokens", "80"))
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["job"] == job
    assert result["rss_gb"] > 0
    if job == "copy":
        assert result["accepted_tokens"] > 50
    if job == "second":
        assert result["second_s"] < result["first_s"]


def test_the_start_is_timed(model: Path) -> None:
    command = [sys.executable, "-m", "bench.start", str(model), "--repeat", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["first_token_s"] == result["runs"][0] > 0
    stages = result["stages"]
    assert list(stages) == [
        "interpreter",
        "imports",
        "weights",
        "tokenizer",
        "engine",
        "first_token",
    ]
    assert stages["first_token"] > 0


def test_the_proof_compares_with_a_peer(model: Path, tmp_path: Path) -> None:
    peers = tmp_path / "peers.py"
    peers.write_text('print("loading"); print(\'{"decode_tok_s": 0.001, "total_s": 9e9}\')\n')
    command = [sys.executable, "-m", "bench.proof", "--out", str(tmp_path), "--model", str(model)]
    command += ["--peers", str(peers), "--llama", sys.executable, "--only", "decode"]
    command += ["--rounds", "1", "--repeat", "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    known = json.loads((tmp_path / "proof.json").read_text())
    assert [run["contender"] for run in known["decode"]] == ["osler", "llama.cpp"]
    row = next(measured(known))
    assert row.versus is not None
    assert row.versus > 1
    assert row.met
    assert "decode, tokens/s" in (tmp_path / "proof.md").read_text()
    assert (tmp_path / "proof.png").read_bytes().startswith(b"\x89PNG")


def test_less_is_better_for_seconds_and_memory() -> None:
    def run(name: str, total_s: float, rss_gb: float) -> dict[str, object]:
        result = {"total_s": total_s, "ttft_s": 1.0, "rss_gb": rss_gb}
        return {"contender": name, "read_gbs": [1, 1], "result": result}

    known = {"whole": [run("osler", 4, 3), run("llama.cpp", 10, 2)]}
    total, first, memory = measured(known)
    assert (total.versus, total.met) == (0.4, False)
    assert first.met is False
    assert (memory.versus, memory.met) == (1.5, False)
