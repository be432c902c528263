"""What a start on packed weights does without: torch, which takes seconds to import."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from osler.native.bpe_table import TABLE_FILE
from osler.native.library import library
from osler.tasks.head import Head, save_head
from osler.tasks.quantize import quantize

pytestmark = pytest.mark.skipif(library() is None, reason="no native library")

# Runs commands in one new process, and says which of the heavy modules they imported.
RUN = """
import json, sys
from osler.cli import main
for command in json.loads(sys.argv[1]):
    assert main(command) == 0, command
heavy = {"torch", "transformers", "scipy", "matplotlib", "pydicom", "tokenizers", "llguidance"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""
# Serves, answers one request of itself, and ends as it is told to.
SERVE = """
import json, os, signal, socket, sys, threading, time, urllib.request
from osler.cli import main
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
answers = []
def ask():
    body = {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "Why?"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    for _ in range(200):
        try:
            answers.append(json.load(urllib.request.urlopen(request, timeout=60)))
            break
        except ConnectionError:
            time.sleep(0.1)
        except urllib.error.URLError:
            time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=ask).start()
options = ["--encoder", sys.argv[2], "--name", "m", "--port", str(port)]
main(["serve", "--model", sys.argv[1], *options])
assert answers[0]["usage"]["completion_tokens"] == 3, answers
print(json.dumps(sorted({"torch", "transformers"} & set(sys.modules))))
"""


@pytest.fixture(scope="module")
def folders(
    medgemma_folder: Path, medsiglip_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("packed")
    quantize(medgemma_folder, root / "decoder", to="int8")
    quantize(medsiglip_folder, root / "encoder", to="int8")
    return str(root / "decoder"), str(root / "encoder")


def imported(code: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_question_in_text_imports_nothing_heavy(folders: tuple[str, str]) -> None:
    command = ["ask", "Why?", "--model", folders[0], "--max-new-tokens", "3", "--seed", "1"]
    assert imported(RUN, json.dumps([command])) == []


def test_no_command_on_packed_weights_imports_torch(
    folders: tuple[str, str], picture: Path, radiograph: Path, tmp_path: Path
) -> None:
    decoder, encoder = folders
    sampled = ["--temperature", "0.8", "--top-p", "0.9", "--max-new-tokens", "3", "--json"]
    values = {"weight_CD": np.eye(2, 32, dtype=np.float32), "bias_C": np.zeros(2, np.float32)}
    save_head(Head(encoder=encoder, classes=("a", "b"), **values), tmp_path / "head")
    commands = [
        ["ask", str(radiograph), "What?", "--model", decoder, *sampled],
        ["classify", str(picture), "--labels", "a,b", "--model", encoder],
        ["classify", str(picture), "--head", str(tmp_path / "head")],
        ["embed", str(picture), "--out", str(tmp_path / "rows.npy"), "--model", encoder],
    ]
    assert "torch" not in imported(RUN, json.dumps(commands))


def test_the_server_on_packed_weights_imports_no_torch(folders: tuple[str, str]) -> None:
    assert imported(SERVE, *folders) == []


def test_an_older_packed_folder_gets_its_tables(folders: tuple[str, str]) -> None:
    tables = Path(folders[0], TABLE_FILE)
    wanted = tables.read_bytes()
    tables.unlink()
    command = ["ask", "Why?", "--model", folders[0], "--max-new-tokens", "1"]
    assert imported(RUN, json.dumps([command])) == []
    assert tables.read_bytes() == wanted
