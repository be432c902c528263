"""Who gets in, what is counted, and what the log holds."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from osler.errors import ServerSettingsError
from osler.inference.sampling import SamplingParams
from osler.preprocess.processor import Processor, Prompt
from osler.serving.metrics import Counter, Histogram, exposition
from osler.serving.server import _PlaceOnly, bound_socket
from osler.serving.settings import ServerSettings
from tests.serving.conftest import WEB, running, served_by
from tests.serving.scripted import ScriptedEngine, ScriptedWork
from tests.serving.test_leaving import until
from tests.serving.test_refusals import BODY, JSON, post, refused

TOKEN = "s3cret-t0ken"


@pytest.fixture(scope="module")
def guarded(processor: Processor) -> Iterator[str]:
    """A server with a token."""
    served = served_by(ScriptedEngine(processor.tokenizer), processor)
    with running(served, token=TOKEN) as url:
        yield url


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "osler.example"])
def test_an_open_address_needs_a_token(host: str) -> None:
    with pytest.raises(ServerSettingsError, match="needs a token"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, token=TOKEN).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert ServerSettings(host=host).token is None


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(ServerSettings(token=TOKEN))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", ""),
        ("token", "a b"),
        ("token", "tökén"),
        ("port", 70_000),
        ("max_requests", 0),
        ("timeout_s", float("nan")),
        ("max_body_bytes", -1),
    ],
)
def test_settings_that_do_not_do(name: str, value: Any) -> None:
    with pytest.raises(ServerSettingsError, match=name):
        ServerSettings(**{name: value})


def test_an_address_that_is_taken(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(ServerSettingsError, match=f"127.0.0.1:{port}: Address already in use"):
        bound_socket("127.0.0.1", port)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"x-api-key": TOKEN},
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models", "/metrics", "/", "/health/"]
)
def test_every_path_but_health_needs_the_token(
    guarded: str, path: str, headers: dict[str, str]
) -> None:
    response = WEB.post(guarded + path, headers=JSON | headers, content=b"{}")
    error = refused(response, 401, "bearer token")
    assert error["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"


def test_the_token_opens(guarded: str) -> None:
    assert post(guarded, BODY, authorization=f"Bearer {TOKEN}").status_code == 200
    assert post(guarded, BODY, authorization=f"bearer  {TOKEN}").status_code == 200
    assert WEB.get(f"{guarded}/health").json() == {"status": "ok"}


def test_a_web_page_under_another_name_does_not_get_in(url: str, guarded: str) -> None:
    refused(WEB.get(f"{url}/v1/models", headers={"host": "evil.example"}), 403, "localhost")
    assert WEB.get(f"{url}/v1/models", headers={"host": "localhost:1"}).status_code == 200
    headers = {"host": "osler.example", "authorization": f"Bearer {TOKEN}"}
    assert WEB.get(f"{guarded}/v1/models", headers=headers).status_code == 200


def test_metrics_count_what_happened(url: str, engine: ScriptedEngine) -> None:
    def read() -> dict[str, float]:
        response = WEB.get(f"{url}/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = [line for line in response.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    before = read()
    post(url, BODY)
    post(url, BODY | {"temperature": -1})
    after = read()
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    chat = 'osler_requests_total{path="/v1/chat/completions",status='
    assert grown[f'{chat}"200"}}'] == grown[f'{chat}"400"}}'] == 1
    assert grown["osler_prompt_tokens_total"] == len(engine.works[0].prompt.ids)
    assert grown["osler_prompt_cache_hit_tokens_total"] == 3
    assert grown["osler_generated_tokens_total"] > 1
    assert grown['osler_answers_total{finish_reason="stop"}'] == 1
    assert grown["osler_request_seconds_count"] == 2
    assert grown["osler_first_token_seconds_count"] == 1
    assert after["osler_answers_open"] == after["osler_held_bytes"] == 0
    assert grown["osler_engine_running"] == 1


def test_the_metrics_text() -> None:
    times = Histogram("seconds", "Time.", [0.5, 1.0])
    for value in (0.2, 0.5, 0.7, 5.0):
        times.observe(value)
    odd = Counter("odd_total", "Odd.")
    odd.add(path='a"b\\c\nd')
    assert exposition([times, odd]).splitlines()[2:] == [
        'seconds_bucket{le="0.5"} 2',
        'seconds_bucket{le="1.0"} 3',
        'seconds_bucket{le="+Inf"} 4',
        "seconds_sum 6.4",
        "seconds_count 4",
        "# HELP odd_total Odd.",
        "# TYPE odd_total counter",
        'odd_total{path="a\\"b\\\\c\\nd"} 1',
    ]


def test_the_log_has_no_contents(
    url: str, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    identity = post(url, BODY).headers["x-request-id"]
    post(url, {**BODY, "messages": "Jane Doe"})
    WEB.get(f"{url}/Jane-Doe?name=Jane")
    records = [record for record in caplog.records if not record.name.startswith("http")]  # ours
    written = "\n".join(record.getMessage() for record in records)
    assert f"{identity} POST /v1/chat/completions 200" in written
    assert "GET other 404" in written
    assert "Jane" not in written


def test_what_nobody_foresaw_is_told_without_its_words(
    url: str, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def submit(prompt: Prompt, params: SamplingParams, **_: object) -> ScriptedWork:
        raise KeyError("Jane Doe")

    engine.submit = submit  # type: ignore[method-assign]
    response = post(url, BODY)
    assert response.status_code == 500
    assert "Jane" not in response.text
    assert response.json()["error"]["type"] == "server_error"
    until(lambda: any(record.exc_info for record in caplog.records))
    (record,) = [one for one in caplog.records if one.exc_info]
    written = _PlaceOnly().format(record)
    assert "KeyError at test_access.py:" in written
    assert "Jane" not in written
