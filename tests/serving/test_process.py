"""`osler serve` as a process: its first line, its end, and what it does not start with."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osler.cli import main
from tests.serving.conftest import WEB, client_of
from tests.serving.test_leaving import begun, until
from tests.serving.test_refusals import JSON

OSLER = [sys.executable, "-c", "import sys; from osler.cli import main; sys.exit(main())"]
LONG: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hello?"}],
    "temperature": 1.0,
    "stream": True,
}


class Process:
    """A running `osler serve`, and what it has written."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [*OSLER, "serve", "--model", str(folder), "--name", "tiny", "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: self._address() or self.process.poll() is not None, seconds=120)
        self.url = self._address()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def _address(self) -> str:
        found = re.search(r"serving tiny on (http://127\.0\.0\.1:\d+)\n", "".join(self.lines))
        return found[1] if found else ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def server(medgemma_folder: Path) -> Iterator[Process]:
    process = Process(medgemma_folder)
    yield process
    process.close()


def test_sigterm_under_load_ends_what_was_begun(server: Process) -> None:
    late = json.dumps(LONG | {"max_tokens": 4, "stream": False}).encode()
    # However soon the streams end, the server has the late one to wait for.
    with client_of(server.url) as client, begun(server.url, len(late)) as connection:
        streams = [client.chat.completions.create(**LONG, max_tokens=40) for _ in range(3)]
        for stream in streams:
            next(stream)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: WEB.get(f"{server.url}/health").status_code == 503)
        refused = WEB.post(f"{server.url}/v1/chat/completions", headers=JSON, json=LONG)
        assert refused.status_code == 503
        for stream in streams:
            assert list(stream)[-1].choices[0].finish_reason in ("stop", "length")
        connection.sendall(late[1:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert server.process.wait(60) == 0
    assert not any("Traceback" in line or "Hello" in line for line in server.lines)


def test_a_second_sigterm_ends_at_once(server: Process) -> None:
    with client_of(server.url) as client, begun(server.url, 1000):
        stream = client.chat.completions.create(**LONG, max_tokens=4000)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: WEB.get(f"{server.url}/health").status_code == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 128 + signal.SIGTERM
        stream.close()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--host", "0.0.0.0"], "host '0.0.0.0' lets other machines in: that needs a token"),
        (["--port", "70000"], "port is 70000"),
        (["--token", ""], "the token is empty"),
        (["--max-requests", "0"], "max_requests is 0"),
        (["--timeout", "nan"], "timeout_s is nan"),
        (["--model", "no-such-model"], "no-such-model: no such folder"),
        (["--encoder", "no-such-model"], "no-such-model: no such folder"),
        (["--host", "256.1.1.1", "--token", "t"], "host '256.1.1.1': "),
    ],
)
def test_what_does_not_start(
    arguments: list[str],
    reason: str,
    medgemma_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OSLER_TOKEN", raising=False)
    assert main(["serve", "--model", str(medgemma_folder), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line


def test_the_environment_brings_the_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSLER_TOKEN", "s3cret")
    assert main(["serve", "--host", "0.0.0.0", "--model", "no-such-model"]) == 1
    assert "no-such-model: no such folder" in capsys.readouterr().err
