"""`/v1/chat/completions`, with the client that people use."""

from typing import Any

import numpy as np
import openai
import pytest

from osler.errors import NonFiniteError
from osler.preprocess.processor import Processor
from osler.preprocess.sources import ImageFile
from tests.serving.conftest import NOTICE, data_url
from tests.serving.scripted import ANSWER, ScriptedEngine

MESSAGES: Any = [{"role": "user", "content": "What is shown?"}]
TEXT = "".join(ANSWER)


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "scripted", "messages": MESSAGES, **more})


def test_a_whole_answer(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    reply = ask(client)
    (choice,) = reply.choices
    assert choice.message.content == TEXT
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    assert reply.model == "scripted"
    assert reply.osler_notice == NOTICE
    (work,) = engine.works
    assert reply.usage.prompt_tokens == len(work.prompt.ids)
    assert reply.usage.prompt_tokens_details.cached_tokens == 3
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_says_the_same_and_the_notice_once(client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True))
    said = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    assert "".join(filter(None, said)) == TEXT
    assert [getattr(chunk, "osler_notice", None) for chunk in chunks].count(NOTICE) == 1
    assert [c.finish_reason for chunk in chunks for c in chunk.choices] == [None] * 3 + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_tells_its_usage_when_asked(client: openai.OpenAI) -> None:
    *others, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in others)
    assert last.choices == []
    assert last.usage == ask(client).usage


def test_the_prompt_is_the_processors(
    client: openai.OpenAI, engine: ScriptedEngine, processor: Processor, png: bytes, dicom: bytes
) -> None:
    content = [
        {"type": "image_url", "image_url": {"url": data_url(png), "detail": "high"}},
        {"type": "image_url", "image_url": {"url": data_url(dicom, "application/dicom")}},
        {"type": "text", "text": "Compare."},
    ]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": content}]
    ask(client, messages=messages)
    images = [{"type": "image", "image": ImageFile(data)} for data in (png, dicom)]
    expected = processor(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [*images, {"type": "text", "text": "Compare."}]},
        ]
    )
    prompt = engine.works[0].prompt
    assert prompt.ids == expected.ids
    assert prompt.input_sha256 == expected.input_sha256
    np.testing.assert_array_equal(prompt.pixels, expected.pixels)


def test_a_conversation(
    client: openai.OpenAI, engine: ScriptedEngine, processor: Processor
) -> None:
    turns = [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Yes?", "reasoning_content": "a greeting"},
        *MESSAGES,
    ]
    ask(client, messages=turns)
    assert engine.works[0].prompt.text == processor(turns).text


def test_sampling_reaches_the_engine(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    ask(
        client,
        temperature=0.5,
        top_p=0.75,
        seed=7,
        stop=["\n", "END"],
        max_completion_tokens=9,
        user="ward 3",
        extra_body={"top_k": 5, "min_p": 0.25, "repetition_penalty": 1.5},
    )
    (work,) = engine.works
    params = work.params
    assert (params.temperature, params.top_p, params.seed) == (0.5, 0.75, 7)
    assert (params.stop, params.max_new_tokens) == (("\n", "END"), 9)
    assert (params.top_k, params.min_p, params.repetition_penalty) == (5, 0.25, 1.5)
    assert work.tenant == "ward 3"
    assert work.deadline_s == 600


def test_what_is_not_said_is_greedy(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    ask(client, stop="END", max_tokens=10**9)
    (work,) = engine.works
    assert work.params.temperature == 0
    assert work.params.stop == ("END",)
    assert work.params.max_new_tokens == 4096
    assert work.tenant == ""


def test_several_answers_draw_differently_and_their_prompt_counts_once(
    client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    one = ask(client).usage
    reply = ask(client, n=3, seed=5)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert [work.params.seed for work in engine.works[1:]] == [5, 6, 7]
    assert reply.usage.prompt_tokens == one.prompt_tokens
    assert reply.usage.completion_tokens == 3 * one.completion_tokens
    streamed: dict[int, str] = {}
    for chunk in ask(client, n=2, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] = streamed.get(choice.index, "") + (choice.delta.content or "")
    assert streamed == {0: TEXT, 1: TEXT}


def test_the_thought_is_kept_apart(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    engine.thought = ("Look at ", "the apex.")
    message = ask(client).choices[0].message
    assert (message.content, message.reasoning_content) == (TEXT, "Look at the apex.")
    deltas = [choice.delta for chunk in ask(client, stream=True) for choice in chunk.choices]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == "Look at the apex."
    assert "".join(delta.content or "" for delta in deltas) == TEXT


@pytest.mark.parametrize("thought", [(), ("Look at the apex.",)])
def test_logprobs_are_those_of_the_answers_tokens(
    client: openai.OpenAI, engine: ScriptedEngine, processor: Processor, thought: tuple[str, ...]
) -> None:
    engine.thought = thought
    tokenizer = processor.tokenizer
    ids = [i for piece in ANSWER for i in tokenizer.encode(piece)] + [1]
    whole = ask(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [entry.token for entry in whole] == [
        tokenizer.decode([i], skip_special=False) for i in ids
    ]
    assert all(bytes(entry.bytes) == entry.token.encode() for entry in whole[:-1])
    assert whole[0].logprob == -0.5
    assert [best.logprob for best in whole[0].top_logprobs] == [-0.5, -9999.0]
    streamed = [
        entry
        for chunk in ask(client, logprobs=True, top_logprobs=2, stream=True)
        for choice in chunk.choices
        if choice.logprobs is not None
        for entry in choice.logprobs.content
    ]
    assert streamed == whole
    assert ask(client, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []


def test_a_constraint_reaches_the_engine(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    schema = {"type": "object", "properties": {"side": {"enum": ["left", "right"]}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "finding", "schema": schema}}
    ask(client, response_format=wanted)
    ask(client, response_format={"type": "json_object"})
    ask(client, response_format={"type": "text"})
    ask(client, extra_body={"structured_outputs": {"regex": "yes|no"}})
    ask(client, extra_body={"structured_outputs": {"json": schema}})
    assert [work.params.schema for work in engine.works] == [
        *(schema, {"type": "object"}, None, None, schema),
    ]
    assert engine.works[3].params.regex == "yes|no"


def test_an_answer_that_ran_out_of_time_says_so(
    client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    engine.finish_reason = "timeout"
    (choice,) = ask(client).choices
    assert (choice.finish_reason, choice.osler_finish_reason) == ("length", "timeout")
    assert choice.message.content == TEXT


def test_an_engine_that_fails_is_told_of(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    engine.error = NonFiniteError("the model's scores at position 3 are not finite")
    with pytest.raises(openai.InternalServerError, match="not finite"):
        ask(client)
    stream = ask(client, stream=True)
    with pytest.raises(openai.APIError, match="not finite"):
        list(stream)


def test_an_engine_that_stops_gives_no_half_answer_for_a_whole_one(
    client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    engine.finish_reason = "cancelled"
    with pytest.raises(openai.InternalServerError) as refusal:
        ask(client)
    assert refusal.value.status_code == 503
    with pytest.raises(openai.APIError, match="before the end"):
        list(ask(client, stream=True))


def test_models_say_what_they_are(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "scripted"
    assert model.model_extra is not None
    assert model.model_extra["osler_notice"] == NOTICE
    assert model.model_extra["osler_image_size_px"] == 224
    assert client.models.retrieve("scripted") == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("google/medgemma-4b-it")
