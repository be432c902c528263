"""`/v1/completions`: prompts as they are."""

from typing import Any

import openai
import pytest

from osler.preprocess.processor import Processor
from tests.serving.conftest import NOTICE
from tests.serving.scripted import ANSWER, ScriptedEngine

TEXT = "".join(ANSWER)


def complete(client: openai.OpenAI, prompt: Any, **more: Any) -> Any:
    return client.completions.create(model="scripted", prompt=prompt, **more)


def test_a_prompt_is_taken_as_it_is(
    client: openai.OpenAI, engine: ScriptedEngine, processor: Processor
) -> None:
    reply = complete(client, "Lungs:")
    assert reply.choices[0].text == TEXT
    assert reply.osler_notice == NOTICE
    assert engine.works[0].prompt.ids == processor.tokenizer.encode("Lungs:", add_bos=True)
    template = "<bos><start_of_turn>user\nHi<end_of_turn>\n"
    complete(client, template)
    assert engine.works[1].prompt.ids == processor.tokenizer.encode(template)


def test_prompts_in_every_form(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    reply = complete(client, ["a", "b"], n=2, seed=1)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert [work.params.seed for work in engine.works] == [1, 2, 1, 2]
    assert engine.works[0].prompt.ids == engine.works[1].prompt.ids
    assert reply.usage.prompt_tokens == 2 * len(engine.works[0].prompt.ids)
    complete(client, [2, 5, 6])
    complete(client, [[2, 5], [2, 6]])
    assert [work.prompt.ids for work in engine.works[4:]] == [[2, 5, 6], [2, 5], [2, 6]]


def test_a_stream(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    engine.thought = ("Look.",)
    chunks = list(complete(client, "Lungs:", stream=True, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in choices) == TEXT
    assert choices[0].reasoning_content == "Look."
    assert choices[-1].finish_reason == "stop"
    assert chunks[-1].usage.prompt_tokens == len(engine.works[0].prompt.ids)
    assert [getattr(chunk, "osler_notice", None) for chunk in chunks].count(NOTICE) == 1


def test_logprobs(client: openai.OpenAI, engine: ScriptedEngine, processor: Processor) -> None:
    whole = complete(client, "Lungs:", logprobs=2).choices[0].logprobs
    assert "".join(whole.tokens[:-1]) == TEXT
    assert whole.text_offset == [len("".join(whole.tokens[:i])) for i in range(len(whole.tokens))]
    assert set(whole.token_logprobs) == {-0.5}
    assert sorted(whole.top_logprobs[0].values()) == [-9999.0, -0.5]
    chunks = complete(client, "Lungs:", logprobs=2, stream=True)
    parts = [c.logprobs for chunk in chunks for c in chunk.choices if c.logprobs is not None]
    for field in ("tokens", "text_offset", "token_logprobs", "top_logprobs"):
        assert [x for part in parts for x in getattr(part, field)] == getattr(whole, field)


@pytest.mark.parametrize("prompt", [[], 5, [["a"]], ["a", 5]])
def test_what_is_no_prompt(client: openai.OpenAI, prompt: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="prompt"):
        complete(client, prompt)
