"""Clients that leave, many of them at once, and a server that ends."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import openai
import pytest

from osler.preprocess.processor import Processor
from osler.serving.server import Server, bound_socket
from osler.serving.settings import ServerSettings
from tests.serving.conftest import WEB, client_of, running, served_by
from tests.serving.scripted import ScriptedEngine
from tests.serving.test_chat import TEXT, ask
from tests.serving.test_refusals import BODY, CHAT, post, refused


def until(holds: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gauge(url: str, name: str) -> float:
    lines = WEB.get(f"{url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


@contextmanager
def begun(url: str, length: int) -> Iterator[socket.socket]:
    """A request whose body of so many bytes has begun to arrive: a server's end waits for it."""
    host, port = url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{head}Content-Length: {length}\r\n\r\n{{".encode())
        until(lambda: gauge(url, "osler_held_bytes") > 0)
        yield connection


def test_hanging_up_in_mid_stream_cancels(
    client: openai.OpenAI, url: str, engine: ScriptedEngine
) -> None:
    engine.pace.clear()
    stream = ask(client, stream=True, n=2)
    next(iter(stream))  # says who speaks, before the first word
    assert not any(work.cancelled.is_set() for work in engine.works)
    stream.close()
    until(lambda: all(work.cancelled.is_set() for work in engine.works))
    until(lambda: gauge(url, "osler_answers_open") == 0)
    assert gauge(url, "osler_held_bytes") == 0


def test_hanging_up_while_waiting_for_the_whole_cancels(url: str, engine: ScriptedEngine) -> None:
    engine.pace.clear()
    body = json.dumps(BODY).encode()
    with begun(url, len(body)) as connection:
        connection.sendall(body[1:])
        until(lambda: engine.works)
        assert not engine.works[0].cancelled.is_set()
    until(engine.works[0].cancelled.is_set)
    until(lambda: gauge(url, "osler_answers_open") == 0)


def test_hanging_up_in_the_middle_of_the_body_leaves_nothing(
    url: str, engine: ScriptedEngine
) -> None:
    with begun(url, 1000):
        pass
    until(lambda: gauge(url, "osler_held_bytes") == 0)
    assert gauge(url, "osler_answers_open") == 0


def test_sixty_four_clients_at_once(
    client: openai.OpenAI, url: str, engine: ScriptedEngine
) -> None:
    engine.pace.clear()

    def one(number: int) -> str:
        if number % 2:
            return str(ask(client, user=f"{number}").choices[0].message.content)
        chunks = ask(client, user=f"{number}", stream=True)  # on a connection of its own
        return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)

    with ThreadPoolExecutor(64) as pool:
        answers = pool.map(one, range(64))
        until(lambda: len(engine.works) == 64)
        assert gauge(url, "osler_answers_open") == 64
        engine.pace.set()
        assert list(answers) == [TEXT] * 64
    assert {work.tenant for work in engine.works} == {str(number) for number in range(64)}
    until(lambda: gauge(url, "osler_answers_open") == 0)


def test_more_than_may_wait_are_told_to_come_again(
    engine: ScriptedEngine, processor: Processor
) -> None:
    engine.pace.clear()
    served = served_by(engine, processor)
    with running(served, max_requests=2) as url, client_of(url) as client:
        stream = ask(client, stream=True, n=2)
        next(stream)
        response = post(url, BODY)
        refused(response, 429, "2 answers are in the making")
        assert int(response.headers["retry-after"]) > 0
        engine.pace.set()
        list(stream)
        until(lambda: gauge(url, "osler_answers_open") == 0)
        assert post(url, BODY).status_code == 200


def test_a_server_that_ends_finishes_what_it_began(
    engine: ScriptedEngine, processor: Processor
) -> None:
    engine.pace.clear()
    ready = threading.Event()
    server = Server(served_by(engine, processor), ServerSettings(), bound_socket("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_until_told, args=(ready.set,))
    thread.start()
    assert ready.wait(30)
    with client_of(server.url) as client, ThreadPoolExecutor(1) as pool:
        stream = ask(client, stream=True)
        next(stream)
        whole = pool.submit(ask, client)
        until(lambda: len(engine.works) == 2)
        assert WEB.get(f"{server.url}/health").json() == {"status": "ok"}
        server.drain()
        response = post(server.url, BODY)
        refused(response, 503, "shutting down")
        assert WEB.get(f"{server.url}/health").status_code == 503
        engine.pace.set()
        said = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
        assert "".join(said) == TEXT
        assert whole.result().choices[0].message.content == TEXT
    thread.join(30)
    assert not thread.is_alive()
    assert len(engine.works) == 2
    with pytest.raises(openai.APIConnectionError), client_of(server.url) as client:
        client.models.list()
