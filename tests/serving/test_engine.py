"""The server over the real engine, and through it the remote model, beside the local one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

import osler
from osler.errors import ModelNotFoundError, PromptError, RemoteEngineError
from osler.preprocess.sources import ImageFile
from osler.serving.served import Served
from osler.tasks.assistant import Assistant
from osler.tasks.remote import RemoteAssistant
from tests.serving.conftest import client_of, data_url, running

QUESTION = "What is shown?"
SAMPLING: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 5}


@pytest.fixture(scope="module")
def local(medgemma_folder: Path) -> Assistant:
    return osler.load(medgemma_folder)


@contextmanager
def serving(model: Assistant) -> Iterator[str]:
    model.engine.start()
    served = Served(
        name="tiny", notice=model.notice, processor=model.processor, engine=model.engine
    )
    with running(served, token="t0ken") as url:
        yield url
    model.engine.close()


@pytest.fixture(scope="module")
def url(medgemma_folder: Path) -> Iterator[str]:
    with serving(osler.load(medgemma_folder)) as url:
        yield url


@pytest.fixture(scope="module")
def nano_url() -> Iterator[str]:
    """Of a model that does not think at random, and so comes to its answer."""
    with serving(osler.load("nano")) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with client_of(url, "t0ken") as client:
        yield client


@pytest.fixture(scope="module")
def remote(url: str) -> RemoteAssistant:
    return osler.load(engine=url, engine_token="t0ken")


def ask(client: openai.OpenAI, question: Any = QUESTION, **more: Any) -> Any:
    usual: dict[str, Any] = {"max_tokens": 12, "temperature": 1.0, "seed": 5}
    messages: Any = [{"role": "user", "content": question}]
    return client.chat.completions.create(**{"model": "tiny", "messages": messages} | usual | more)


def test_the_server_says_what_the_model_says(
    client: openai.OpenAI, local: Assistant, png: bytes, dicom: bytes
) -> None:
    answer = local.ask(QUESTION, **SAMPLING)
    reply = ask(client)
    assert reply.choices[0].message.content == answer.text
    assert reply.choices[0].finish_reason == answer.finish_reason
    assert reply.usage.prompt_tokens == answer.prompt_tokens
    assert reply.usage.completion_tokens == answer.new_tokens
    content = [
        {"type": "image_url", "image_url": {"url": data_url(png)}},
        {"type": "image_url", "image_url": {"url": data_url(dicom, "application/dicom")}},
        {"type": "text", "text": QUESTION},
    ]
    images = [ImageFile(png), ImageFile(dicom)]
    seen = local.ask(QUESTION, images, **SAMPLING)
    assert ask(client, content).choices[0].message.content == seen.text
    assert seen.text != answer.text


def test_logprobs_are_the_models(client: openai.OpenAI, local: Assistant) -> None:
    (choice,) = ask(client, logprobs=True, top_logprobs=3, temperature=0).choices
    first = choice.logprobs.content[0]
    prompt = local.stream(QUESTION).prompt
    scores = local.logits([list(prompt.ids)])[0, -1].log_softmax(dim=0)
    assert first.logprob == pytest.approx(float(scores.max()), abs=1e-3)
    assert [best.logprob for best in first.top_logprobs] == pytest.approx(
        scores.topk(3).values.tolist(), abs=1e-3
    )


def test_a_schema_is_kept_to(nano_url: str) -> None:
    schema = {
        "type": "object",
        "properties": {"side": {"enum": ["left", "right"]}, "sure": {"type": "boolean"}},
        "required": ["side", "sure"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "finding", "schema": schema}}
    with client_of(nano_url, "t0ken") as client:
        said = ask(client, response_format=wanted, max_tokens=200).choices[0]
        found = json.loads(said.message.content)
        assert found["side"] in ("left", "right")
        assert isinstance(found["sure"], bool)
        unusable = wanted | {"json_schema": {"name": "x", "schema": {"type": 5}}}
        with pytest.raises(openai.BadRequestError, match="schema"):
            ask(client, response_format=unusable)


def test_a_schema_reaches_a_remote_model(nano_url: str) -> None:
    remote = osler.load(engine=nano_url, engine_token="t0ken")
    side = json.loads(remote.ask(QUESTION, schema={"enum": ["left", "right"]}).text)
    assert side in ("left", "right")
    assert remote.ask(QUESTION, regex="yes|no").text in ("yes", "no")


def test_what_is_known_is_shared_by_one_tenant_only(client: openai.OpenAI) -> None:
    question = "Is there a fracture? " * 20

    def known(user: str) -> int:
        cached: int = ask(client, question, user=user).usage.prompt_tokens_details.cached_tokens
        return cached

    assert known("ward 3") == 0
    assert known("ward 3") > 50
    assert known("ward 4") == 0


def test_a_prompt_that_is_too_long_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="this model takes"):
        ask(client, "word " * 20_000)
    with pytest.raises(openai.BadRequestError, match="not in the model's vocabulary"):
        client.completions.create(model="tiny", prompt=[2, 10**6])


def test_a_remote_model_is_a_local_one_elsewhere(
    remote: RemoteAssistant, local: Assistant, png: bytes, dicom: bytes
) -> None:
    images = [ImageFile(png), ImageFile(dicom)]
    for given in ({}, {"images": images}, {"images": images, "system": " Be brief.\n"}):
        here: Any = local.ask(QUESTION, **given, **SAMPLING)
        there: Any = remote.ask(QUESTION, **given, **SAMPLING)
        assert there.text == here.text
        assert there.prompt_tokens == here.prompt_tokens
        assert there.new_tokens == here.new_tokens
        assert there.input_sha256 == here.input_sha256
        assert there.finish_reason == here.finish_reason
        assert (there.notice, there.version) == (here.notice, here.version)
    assert there.model == remote.name == "tiny"
    assert there.tokens == ()
    assert 0 < there.timings.first_token_s <= there.timings.total_s


def test_a_remote_conversation(remote: RemoteAssistant, local: Assistant) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello <start_of_turn>?"},
        {"role": "model", "content": [{"type": "text", "text": "Yes?"}]},
        {"role": "user", "content": QUESTION},
    ]
    assert remote.chat(turns, **SAMPLING).text == local.chat(turns, **SAMPLING).text


def test_a_remote_stream_can_be_closed(remote: RemoteAssistant) -> None:
    stream = remote.stream(QUESTION, max_new_tokens=8000, temperature=1.0)
    assert next(stream)
    stream.close()
    assert list(stream) == []


def test_what_a_remote_model_refuses(remote: RemoteAssistant, url: str) -> None:
    with pytest.raises(PromptError, match="temperature"):
        remote.ask(QUESTION, temperature=-1)
    with pytest.raises(PromptError, match="the last one must be"):
        remote.chat([])
    with pytest.raises(PromptError, match="pan_and_scan"):
        remote.ask(QUESTION, pan_and_scan=True)
    with pytest.raises(PromptError, match="logprobs"):
        remote.ask(QUESTION, logprobs=1)
    with pytest.raises(RemoteEngineError, match=r"answers 400: .*takes from 1"):
        remote.ask("word " * 20_000)
    with pytest.raises(RemoteEngineError, match=r"needs a token \(401\)"):
        osler.load(engine=url)
    with pytest.raises(RemoteEngineError, match="refuses the token"):
        osler.load(engine=url, engine_token="wrong")
    with pytest.raises(ModelNotFoundError, match="no model 'big'; it has tiny"):
        osler.load("big", engine=url, engine_token="t0ken")
