"""Requests that are refused, and what is said then."""

import json
import socket
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osler.errors import QueueFullError
from osler.preprocess.processor import Processor
from tests.serving.conftest import WEB, data_url, running, served_by
from tests.serving.scripted import ScriptedEngine

MESSAGES = [{"role": "user", "content": "Jane Doe, what is shown?"}]
BODY = {"model": "scripted", "messages": MESSAGES}
JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"


def post(url: str, body: Any, path: str = CHAT, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WEB.post(url + path, content=content, headers=JSON | headers)


def refused(response: httpx2.Response, status: int, reason: str = "") -> dict[str, Any]:
    """The error, which must be in OpenAI's form."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert reason in error["message"]
    assert "\n" not in error["message"]
    assert "Jane Doe" not in response.text
    assert "Traceback" not in response.text
    assert response.headers["x-request-id"]
    return error


def image(url: object) -> list[dict[str, Any]]:
    part = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [part, {"type": "text", "text": "What is shown?"}]}]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"model": "\\ud800"}', "not JSON"),
        (b"[]", "body"),
        (b"null", "body"),
        ({"model": "scripted"}, "messages"),
        ({"messages": MESSAGES}, "model"),
        (BODY | {"messages": []}, "the last one must be the user's"),
        (BODY | {"messages": "Jane Doe"}, "messages"),
        (BODY | {"messages": [{"role": "user"}]}, "no content"),
        (BODY | {"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        (BODY | {"messages": [{"role": "user", "content": []}]}, "says nothing"),
        (BODY | {"messages": [{"role": "tool", "content": "x"}]}, "role"),
        (BODY | {"messages": MESSAGES * 2}, "role"),
        (BODY | {"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "'video'"),
        (BODY | {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "has none"),
        (BODY | {"messages": image(5)}, "url"),
        (BODY | {"messages": image("https://example.org/a.png")}, "a https URL; this server"),
        (BODY | {"messages": image("HTTP://127.0.0.1/a.png")}, "fetches nothing"),
        (BODY | {"messages": image("file:///etc/passwd")}, "a file URL; this server"),
        (BODY | {"messages": image("/etc/passwd")}, "not a base64 data URL"),
        (BODY | {"messages": image("data:image/png,AAAA")}, "not a base64 data URL"),
        (BODY | {"messages": image("data:text/plain;base64,AAAA")}, "its type must be"),
        (BODY | {"messages": image("data:image/png;base64,A*A=")}, "is not base64"),
        (BODY | {"messages": image("data:image/png;base64,AAA")}, "is not base64"),
        (BODY | {"messages": image("data:image/png;base64,")}, "the file is empty"),
        (BODY | {"messages": image(data_url(b"Jane Doe"))}, "neither DICOM nor"),
        (BODY | {"messages": image(data_url(bytes(128) + b"DICM"))}, "message 1, part 1"),
        (BODY | {"temperature": -1}, "temperature"),
        (BODY | {"temperature": True}, "temperature"),
        (BODY | {"temperature": "0"}, "temperature"),
        (json.dumps(BODY | {"temperature": float("nan")}).encode(), "temperature"),
        (BODY | {"top_p": 2}, "top_p"),
        (BODY | {"max_tokens": 0}, "max_new_tokens"),
        (BODY | {"n": 0}, "n:"),
        (BODY | {"n": 17}, "n:"),
        (BODY | {"seed": -1}, "seed"),
        (BODY | {"seed": 10**30}, "seed"),
        (BODY | {"stop": [""]}, "stop"),
        (BODY | {"stop": 5}, "stop"),
        (BODY | {"stream": "yes"}, "stream"),
        (BODY | {"top_logprobs": 3}, "needs logprobs"),
        (BODY | {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (BODY | {"response_format": {"type": "xml"}}, "response_format.type"),
        (BODY | {"response_format": {"type": "json_schema"}}, "has no schema"),
        (BODY | {"structured_outputs": {"choice": ["a"]}}, "structured_outputs.choice"),
        (BODY | {"structured_outputs": {"regex": "a", "json": {}}}, "regex"),
        (
            BODY
            | {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "regex",
        ),
        (BODY | {"tools": [{"type": "function"}]}, "'tools' is not supported"),
        (BODY | {"presence_penalty": 1}, "'presence_penalty' is not supported"),
        (BODY | {"temprature": 1}, "'temprature' is not supported"),
    ],
)
def test_malformed_bodies(url: str, engine: ScriptedEngine, body: Any, reason: str) -> None:
    refused(post(url, body), 400, reason)
    assert engine.works == []


def test_fields_that_ask_for_nothing_are_passed_over(url: str) -> None:
    neutral = {
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "tools": [],
        "tool_choice": "none",
        "logit_bias": {},
        "metadata": {"ward": "3"},
        "store": False,
        "service_tier": "auto",
        "stop": None,
        "audio": None,
    }
    assert post(url, BODY | neutral).status_code == 200


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    "messages temperature top_p n seed stop stream response_format logprobs user".split()
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.dictionaries(FIELDS, ANY_JSON), messages=st.booleans())
def test_no_body_is_too_strange(url: str, body: dict[str, Any], messages: bool) -> None:
    strange = {"model": "scripted"} | body | ({"messages": MESSAGES} if messages else {})
    response = post(url, strange)
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert set(response.json()) == {"error"}


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=64))
def test_no_bytes_are_too_strange(url: str, body: bytes) -> None:
    assert post(url, body).status_code == 400


def test_other_models_and_paths_are_not_found(url: str) -> None:
    error = refused(post(url, BODY | {"model": "gpt-4o"}), 404, "'gpt-4o'")
    assert error["code"] == "model_not_found"
    refused(post(url, BODY, "/v1/responses"), 404)
    refused(WEB.get(url + CHAT), 405)


def test_only_json_is_read(url: str) -> None:
    refused(post(url, BODY, **{"content-type": "text/plain"}), 415)


def test_large_bodies_are_refused_before_they_are_read(
    engine: ScriptedEngine, processor: Processor
) -> None:
    with running(served_by(engine, processor), max_body_bytes=1000) as url:
        refused(post(url, b" " * 1001), 413, "larger than 1,000 bytes")
        chunked = WEB.post(url + CHAT, content=iter([b" " * 600] * 2), headers=JSON)
        refused(chunked, 413, "larger than 1,000 bytes")
        assert post(url, BODY).status_code == 200


def test_images_that_take_too_much_memory_are_refused(
    engine: ScriptedEngine, processor: Processor, png: bytes
) -> None:
    one_image = 3 * 224 * 224 * 4
    with running(served_by(engine, processor), max_held_bytes=2 * one_image) as url:
        assert post(url, BODY | {"messages": image(data_url(png))}).status_code == 200
        three = [{"role": "user", "content": image(data_url(png))[0]["content"] * 3}]
        refused(post(url, BODY | {"messages": three}), 413, "the request's images")
        assert post(url, BODY | {"messages": image(data_url(png))}).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(
    engine: ScriptedEngine, processor: Processor
) -> None:
    with running(served_by(engine, processor), body_timeout_s=0.05) as url:
        host, port = url.removeprefix("http://").split(":")
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_a_full_engine_is_busy(url: str, engine: ScriptedEngine) -> None:
    engine.full = QueueFullError("12 requests wait already")
    response = post(url, BODY)
    error = refused(response, 429, "12 requests wait already")
    assert error["code"] == "server_busy"
    assert int(response.headers["retry-after"]) > 0


def test_more_answers_than_there_is_room_for(engine: ScriptedEngine, processor: Processor) -> None:
    with running(served_by(engine, processor), max_requests=2) as url:
        refused(post(url, BODY | {"n": 3}), 400, "more than 2 answers")
        assert post(url, BODY | {"n": 2}).status_code == 200
