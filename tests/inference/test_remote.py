"""The client of engines elsewhere, against servers that misbehave."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from osler.errors import PromptError, RemoteEngineError
from osler.inference.continuation import Generation, Piece
from osler.inference.remote import RemoteEngine
from osler.inference.remote_address import remote_address
from osler.inference.sampling import SamplingParams

BASE = "http://127.0.0.1:8000/v1"
MESSAGES = [{"role": "user", "content": "Does Jane Doe, born 1950, have pneumonia?"}]

Handler = Callable[[httpx2.Request], httpx2.Response]


def engine(handler: Handler, token: str | None = None) -> RemoteEngine:
    address = remote_address("http://127.0.0.1:8000", token)
    return RemoteEngine(address, transport=httpx2.MockTransport(handler))


def events(*chunks: Any, done: bool = True) -> httpx2.Response:
    lines = [c if isinstance(c, str) else f"data: {json.dumps(c)}" for c in chunks]
    lines += ["data: [DONE]"] if done else []
    return httpx2.Response(200, text="\n\n".join(lines) + "\n\n")


def delta(finish_reason: str | None = None, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish_reason}]}


def answer(handler: Handler, **sampling: Any) -> tuple[list[Piece], Generation]:
    *pieces, last = engine(handler).stream(MESSAGES, SamplingParams(**sampling), model="m")
    assert isinstance(last, Generation)
    return [piece for piece in pieces if isinstance(piece, Piece)], last


def failure(handler: Handler, token: str | None = None) -> str:
    with pytest.raises(RemoteEngineError) as error:
        list(engine(handler, token).stream(MESSAGES, SamplingParams(), model="m"))
    message = str(error.value)
    assert message.startswith(BASE)
    assert "\n" not in message
    assert "Jane" not in message
    return message


def test_pieces_then_the_whole() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    pieces, whole = answer(
        lambda _: events(
            ": still there",
            delta(role="assistant", content=""),
            delta(content="No "),
            delta(content="pneumonia."),
            delta("stop"),
            usage,
        )
    )
    assert [piece.text for piece in pieces] == ["No ", "pneumonia."]
    assert (whole.text, whole.thought, whole.ids) == ("No pneumonia.", "", ())
    assert whole.finish_reason == "stop"
    assert (whole.timings.prompt_tokens, whole.timings.new_tokens) == (9, 4)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_that_the_server_keeps_apart(field: str) -> None:
    pieces, whole = answer(
        lambda _: events(delta(**{field: "Look."}), delta(content="No."), delta("length"))
    )
    assert [(piece.text, piece.is_thought) for piece in pieces] == [("Look.", True), ("No.", False)]
    assert (whole.thought, whole.text, whole.finish_reason) == ("Look.", "No.", "length")


def test_a_thought_that_the_server_leaves_in_the_text() -> None:
    marked = ["<unused", "94>thought\nLook.", "<unused95>N", "o."]
    _, whole = answer(lambda _: events(*(delta(content=text) for text in marked), delta("stop")))
    assert (whole.thought, whole.text) == ("Look.", "No.")


def test_only_what_is_asked_for_is_sent() -> None:
    sent: list[dict[str, Any]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.content))
        assert request.headers["authorization"] == "Bearer t0ken"
        return events(delta("stop"))

    remote = engine(handler, "t0ken")
    schema = {"type": "object"}
    for sampling in (
        {},
        {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 1, "stop": ["a"]},
        {"schema": schema},
        {"schema": json.dumps(schema)},
        {"regex": "a+"},
    ):
        list(remote.stream(MESSAGES, SamplingParams(**sampling), model="m"))
    usual = {
        "model": "m",
        "messages": MESSAGES,
        "max_tokens": 200,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert sent[0] == usual
    assert sent[1] == usual | {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 1,
        "stop": ["a"],
    }
    assert sent[2] == sent[3]
    assert sent[2]["response_format"]["json_schema"]["schema"] == schema
    assert sent[4]["structured_outputs"] == {"regex": "a+"}
    with pytest.raises(PromptError, match="logprobs"):
        remote.stream(MESSAGES, SamplingParams(logprobs=1), model="m")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (events(delta(content="No "), done=False), "broke off before the answer's end"),
        (events(), "broke off before the answer's end"),
        (httpx2.Response(200, json={"choices": []}), "broke off before the answer's end"),
        (events("data: {"), "no JSON"),
        (events("data: " + "[" * 100_000), "no JSON"),
        (events("data: 5"), "sends what is no answer"),
        (events(delta(content="No "), {"error": {"message": "out of memory"}}), "out of memory"),
        (httpx2.Response(500, text="<html>Jane Doe, born 1950"), "answers 500"),
        (httpx2.Response(400, json={"error": {"message": "too long"}}), "answers 400: too long"),
        (httpx2.Response(400, json={"error": {"message": "x " * 999}}), "answers 400: x x"),
        (
            httpx2.Response(400, json={"error": {"message": "bad: 'Jane Doe, born 1950, have'"}}),
            "answers 400",
        ),
        (httpx2.Response(401, json={}), "needs a token (401)"),
        (httpx2.Response(302, headers={"location": "http://evil.example/"}), "does not follow"),
        (httpx2.Response(404), "answers 404"),
    ],
)
def test_servers_that_misbehave(response: httpx2.Response, reason: str) -> None:
    assert reason in failure(lambda _: response)


def test_a_token_that_is_refused() -> None:
    message = failure(lambda _: httpx2.Response(403), "t0ken")
    assert "refuses the token" in message
    assert "t0ken" not in message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx2.ConnectError("[Errno 111] Connection refused"), "out of reach"),
        (httpx2.ReadTimeout("Jane Doe"), "no answer for too long"),
        (httpx2.RemoteProtocolError("Jane Doe"), "broke off (RemoteProtocolError)"),
    ],
)
def test_connections_that_fail(error: Exception, reason: str) -> None:
    def handler(_: httpx2.Request) -> httpx2.Response:
        raise error

    assert reason in failure(handler)


@pytest.mark.parametrize("body", [{}, {"data": {}}, {"data": [{}]}, {"data": [5]}, [], "x"])
def test_what_is_no_list_of_models(body: Any) -> None:
    with pytest.raises(RemoteEngineError, match="no list of models"):
        engine(lambda _: httpx2.Response(200, json=body)).models()


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        (" https://gpu.example/v1/ ", "https://gpu.example/v1"),
        ("https://gpu.example/llm/v1", "https://gpu.example/llm/v1"),
        ("http://[::1]:80/", "http://[::1]:80/v1"),
    ],
)
def test_addresses(url: str, base: str) -> None:
    assert remote_address(url).base == base


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8000", "ftp://a/", "file:///etc/passwd", "http://", "http://a:x/"),
        *("http://[a/", "http://a/?key=s3cret", "http://a/#s3cret", "http://me:s3cret@a/"),
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(PromptError, match=r"^engine: ") as error:
        remote_address(url)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("token", ["", " ", "a\nb", "tökén"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(PromptError, match="the token"):
        remote_address("http://127.0.0.1", token)


def test_a_token_is_not_shown() -> None:
    assert "s3cret" not in repr(remote_address("http://127.0.0.1", "s3cret"))


def test_a_warning_where_others_can_read() -> None:
    for safe in ("http://localhost:1", "http://127.0.0.9", "http://[::1]", "https://gpu.example"):
        assert remote_address(safe).warning is None
    for open_to_all in ("http://gpu.example", "http://10.0.0.7:8000", "http://localhost.evil.org"):
        assert "not encrypted" in str(remote_address(open_to_all).warning)


def scored_chunk(*tokens: tuple[Any, list[Any]], **more: Any) -> dict[str, Any]:
    def entry(token: Any, logprob: float) -> dict[str, Any]:
        if isinstance(token, bytes):
            return {"token": "\ufffd", "bytes": list(token), "logprob": logprob}
        return {"token": token, "bytes": None, "logprob": logprob}

    content = [
        entry(token, -0.5) | {"top_logprobs": [entry(*one) for one in top]} for token, top in tokens
    ]
    return delta(content="text", **more) | {
        "choices": [
            {"index": 0, "delta": {"content": "text"}, "logprobs": {"content": content}, **more}
        ]
    }


def scored(handler: Handler, count: int = 2) -> Any:
    return engine(handler).scored(MESSAGES, SamplingParams(logprobs=count), model="m")


def test_tokens_with_what_else_they_could_have_been() -> None:
    asked: list[dict[str, Any]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(json.loads(request.content))
        return events(
            scored_chunk(("No", [("No", -0.5), ("Yes", -1.5)])),
            scored_chunk((b"\xc3", [(b"\xc3", -0.1)]), ("!", [])),
            delta("stop"),
        )

    answer = scored(handler)
    assert (asked[0]["logprobs"], asked[0]["top_logprobs"]) == (True, 2)
    assert [token.token for token in answer.tokens] == [b"No", b"\xc3", b"!"]
    assert answer.tokens[0].top == ((b"No", -0.5), (b"Yes", -1.5))
    assert answer.is_complete


def test_an_answer_that_was_cut_off_is_not_complete() -> None:
    cut = scored(lambda _: events(scored_chunk(("No", [("No", -0.5)])), delta("length")))
    assert not cut.is_complete


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([delta(content="No."), delta("stop")], "no log-probabilities"),
        ([scored_chunk(("No", [("No", -0.5)]))], "broke off"),
        ([{"error": {"message": "logprobs are not for you"}}], "not for you"),
    ],
)
def test_a_server_without_scores(sent: list[Any], reason: str) -> None:
    with pytest.raises(RemoteEngineError, match=reason):
        scored(lambda _: events(*sent))


@pytest.mark.parametrize("content", [None, 3, [3], [{"token": "a"}], [{"logprob": -1}], [None]])
def test_scores_in_no_known_form_are_passed_over(content: Any) -> None:
    chunk = {"choices": [{"delta": {}, "logprobs": {"content": content}}]}
    answer = scored(lambda _: events(chunk, {"choices": [{"logprobs": 3}]}, delta("stop")))
    assert answer.tokens == ()
