"""The remote model against a server that is not ours: llama.cpp's own, out of a wheel of its."""

import json
import os
import re
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import osler
from osler.cli import main
from osler.errors import RemoteEngineError
from osler.tasks.remote import RemoteAssistant
from tests.serving.gguf_files import write_text_model, write_vision_model

pytestmark = pytest.mark.slow

SERVER = "xllamacpp==2026.10.11549"
TOKEN = "t0ken"
# Gemma's own wants tokens that the tiny vocabulary does not have.
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
# It answers until its standard input is closed.
PROGRAM = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.mmproj.path, params.model_alias = sys.argv[1], sys.argv[2], {"tiny-gguf"}
params.mmproj_use_gpu, params.n_gpu_layers, params.warmup = False, 0, False
params.n_ctx, params.n_parallel, params.use_jinja = 4096, 2, True
params.chat_template, params.api_keys = sys.argv[5], [sys.argv[3]]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.hostnames, params.port = ["127.0.0.1"], int(sys.argv[4])
server = xllamacpp.Server(params)
print("serving on", server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python that has the server; made once, and kept from run to run."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(caches).expanduser() / "osler-tests" / SERVER.replace("==", "-")
    program = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, clear=True, with_pip=True)
        install = [str(program), "-m", "pip", "install", "-qq", "--only-binary=:all:", SERVER]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return program


@pytest.fixture(scope="module")
def url(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("gguf")
    write_text_model(folder / "text.gguf")
    write_vision_model(folder / "vision.gguf")
    arguments = [str(folder / "text.gguf"), str(folder / "vision.gguf"), TOKEN, "0", TEMPLATE]
    process = subprocess.Popen(
        [python, "-c", PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"serving on (http://127\.0\.0\.1:\d+)", line):
            yield found[1]
            break
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def remote(url: str) -> RemoteAssistant:
    return osler.load(engine=url, engine_token=TOKEN)


def test_it_answers(remote: RemoteAssistant) -> None:
    answer = remote.ask("What is shown?", max_new_tokens=8)
    assert remote.name == answer.model == "tiny-gguf"
    assert answer.text
    assert answer.new_tokens == 8
    assert answer.finish_reason == "length"
    assert answer.prompt_tokens > 8
    assert answer.text == remote.ask("What is shown?", max_new_tokens=8).text
    sampled = [
        remote.ask("What is shown?", max_new_tokens=8, temperature=1.0, seed=seed).text
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


def test_it_sees_dicom_as_a_picture(remote: RemoteAssistant, radiograph: Path) -> None:
    plain = remote.ask("What is shown?", max_new_tokens=4)
    seen = remote.ask("What is shown?", [radiograph], max_new_tokens=4)
    assert seen.prompt_tokens >= plain.prompt_tokens + (224 // 14 // 4) ** 2
    assert len(seen.input_sha256) == 1


def test_a_conversation_streams(remote: RemoteAssistant) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "What is shown?"},
    ]
    stream = remote.stream(turns, max_new_tokens=8)
    assert len(pieces := list(stream)) > 1
    assert "".join(pieces) == stream.answer.text
    closed = remote.stream(turns, max_new_tokens=2000)
    next(closed)
    closed.close()
    assert remote.chat(turns, max_new_tokens=8).text == stream.answer.text


def test_it_keeps_to_a_schema(remote: RemoteAssistant) -> None:
    answer = remote.ask("Which side?", schema={"enum": ["left", "right"]}, max_new_tokens=50)
    assert json.loads(answer.text) in ("left", "right")


def test_its_refusals_are_told(remote: RemoteAssistant, url: str) -> None:
    with pytest.raises(RemoteEngineError, match="answers 400"):
        remote.ask("word " * 5000)
    with pytest.raises(RemoteEngineError, match=r"needs a token|refuses the token"):
        osler.load(engine=url, engine_token="wrong").ask("What is shown?")


def test_the_command_line(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, radiograph: Path
) -> None:
    monkeypatch.setenv("TINY_TOKEN", TOKEN)
    engine = ["--engine", url, "--engine-token-env", "TINY_TOKEN", "--max-new-tokens", "4"]
    assert main(["ask", str(radiograph), "What is shown?", *engine, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["model"] == "tiny-gguf"
    assert printed["new_tokens"] == 4
