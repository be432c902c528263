"""Answers kept to a schema or expression, by models that would rather say anything."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from osler.errors import PromptError
from osler.inference.constraint import MOST_WHITESPACE
from osler.inference.continuation import Generation
from osler.inference.engine import Engine
from osler.inference.generate import complete
from osler.inference.limits import Limits
from osler.inference.sampling import SamplingParams
from osler.preprocess.tokenizer import Tokenizer
from osler.testing.dummy import PIECES, dummy_config
from osler.testing.runners import HashRunner, ScriptedRunner
from tests.inference.conftest import MakeRunner
from tests.inference.prompts import text_prompt

LIMITS = Limits(cache_bytes=1_000_000)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "finding": {"type": "string", "maxLength": 12},
        "side": {"enum": ["left", "right", None]},
        "size_mm": {"type": "integer", "minimum": 0, "maximum": 999},
        "seen": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["finding", "side", "size_mm", "seen"],
    "additionalProperties": False,
}


def assert_keeps_to_the_schema(text: str) -> None:
    value = json.loads(text)
    assert set(value) == set(SCHEMA["properties"])
    assert len(value["finding"]) <= 12
    assert value["side"] in ("left", "right", None)
    assert 0 <= value["size_mm"] <= 999
    assert all(isinstance(seen, bool) for seen in value["seen"])


@dataclass
class WildRunner(HashRunner):
    """Says any of all tokens, but does not think."""

    vocabulary: int = dummy_config().text_config.vocab_size
    first: int = 0

    def scores(self, history: list[int]) -> NDArray[np.float32]:
        logits_V = super().scores(history)
        logits_V[PIECES.index("<unused94>")] = -50.0
        return logits_V


def wild(tokenizer: Tokenizer, **limits: Any) -> Engine:
    return Engine(WildRunner(), tokenizer, limits=replace(LIMITS, **limits))


def answers(engine: Engine, params: SamplingParams, count: int = 5) -> list[Generation]:
    return complete(engine, [text_prompt(370 + n) for n in range(count)], params)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("schema", [SCHEMA, json.dumps(SCHEMA)], ids=["dict", "text"])
def test_any_model_gives_what_the_schema_asks_for(
    tokenizer: Tokenizer, temperature: float, schema: dict[str, Any] | str
) -> None:
    params = SamplingParams(max_new_tokens=400, schema=schema, temperature=temperature, seed=1)
    got = answers(wild(tokenizer), params)
    for generation in got:
        assert generation.finish_reason == "stop"
        assert_keeps_to_the_schema(generation.text)
    assert len({generation.text for generation in got}) > 1


def test_a_real_model_gives_what_the_schema_asks_for(
    make_runner: MakeRunner, tokenizer: Tokenizer
) -> None:
    engine = Engine(make_runner(dummy_config()), tokenizer, limits=Limits(cache_bytes=1 << 24))
    params = SamplingParams(max_new_tokens=300, schema=SCHEMA, temperature=1.0, seed=0)
    for generation in answers(engine, params, 3):
        assert generation.finish_reason == "stop"
        assert_keeps_to_the_schema(generation.text)


@pytest.mark.parametrize(
    "regex", ["(yes|no)", "[A-Z]{3}-[0-9]{2,4}", "Größe: [0-9]+ µm", "(a|b){1,5}\n"]
)
def test_any_model_matches_the_expression(tokenizer: Tokenizer, regex: str) -> None:
    params = SamplingParams(max_new_tokens=100, regex=regex)
    for generation in answers(wild(tokenizer), params):
        assert re.fullmatch(regex, generation.text)
        assert generation.finish_reason == "stop"


def test_forced_tokens_are_read_together_and_change_nothing(tokenizer: Tokenizer) -> None:
    """What the schema leaves no choice about needs no step of its own."""
    params = SamplingParams(max_new_tokens=400, schema=SCHEMA)
    plain, eager = wild(tokenizer, draft_tokens=0), wild(tokenizer)
    for slowly, quickly in zip(answers(plain, params), answers(eager, params), strict=True):
        assert slowly.ids == quickly.ids
    assert eager.stats().accepted_tokens > 50


class Blank(WildRunner):
    """Prefers whitespace."""

    def scores(self, history: list[int]) -> NDArray[np.float32]:
        logits_V = super().scores(history)
        logits_V[[PIECES.index("▁"), PIECES.index("\n")]] = 50.0
        return logits_V


def test_whitespace_does_not_go_on_for_ever(tokenizer: Tokenizer) -> None:
    engine = Engine(Blank(), tokenizer, limits=LIMITS)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    (generation,) = answers(engine, SamplingParams(max_new_tokens=300, schema=schema), 1)
    assert generation.finish_reason == "stop"
    assert isinstance(json.loads(generation.text)["a"], int)
    runs = re.findall(r"\s+", generation.text)
    assert max(map(len, runs)) == MOST_WHITESPACE


def test_a_thought_comes_before_the_constraint(tokenizer: Tokenizer) -> None:
    script = tokenizer.encode('<unused94>thought\n{"no schema here<unused95>[1, 2]')
    engine = Engine(ScriptedRunner(scripts=[script]), tokenizer, limits=LIMITS)
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    params = SamplingParams(max_new_tokens=60, schema=schema)
    (generation,) = complete(engine, [text_prompt(ScriptedRunner.MARK)], params)
    assert generation.thought == '{"no schema here'
    assert generation.text == "[1, 2]"
    assert generation.finish_reason == "stop"


def test_marks_of_thought_do_not_come_into_the_answer(tokenizer: Tokenizer) -> None:
    script = tokenizer.encode("a<unused94>b<unused95>c<unused94>")
    engine = Engine(ScriptedRunner(scripts=[script]), tokenizer, limits=LIMITS)
    params = SamplingParams(max_new_tokens=60, regex="[a-z<>0-9]{6}")
    (generation,) = complete(engine, [text_prompt(ScriptedRunner.MARK)], params)
    assert generation.thought == ""
    assert re.fullmatch("[a-z<>0-9]{6}", generation.text)


def test_the_constraint_wins_over_the_guard_against_repetition(tokenizer: Tokenizer) -> None:
    params = SamplingParams(max_new_tokens=60, regex="aaaa(bb)aaaa", no_repeat_ngram_size=1)
    for generation in answers(wild(tokenizer), params):
        assert generation.text == "aaaabbaaaa"


def test_stop_and_length_still_end_a_constrained_answer(tokenizer: Tokenizer) -> None:
    params = SamplingParams(max_new_tokens=20, regex="a{50}", stop=["aaaa"])
    (generation,) = answers(wild(tokenizer), params, 1)
    assert (generation.text, generation.finish_reason) == ("", "stop")
    (generation,) = answers(wild(tokenizer), SamplingParams(max_new_tokens=5, regex="a{50}"), 1)
    assert (generation.text, generation.finish_reason) == ("aaaaa", "length")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schema": "{"}, "the schema is not JSON"),
        ({"schema": "no schema"}, "the schema"),
        ({"schema": {"type": "rabbit"}}, "the schema cannot be used"),
        ({"schema": {"$ref": "#/nowhere"}}, "the schema cannot be used"),
        ({"schema": {"const": object}}, "the schema is not JSON"),
        ({"regex": "(a"}, "the regex cannot be used"),
        ({"regex": "(?=a)b"}, "the regex cannot be used"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_to_is_refused_at_once(
    tokenizer: Tokenizer, settings: dict[str, Any], message: str
) -> None:
    engine = wild(tokenizer)
    with pytest.raises(PromptError, match=message) as caught:
        engine.submit(text_prompt(370), SamplingParams(**settings))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert not engine.stats().waiting
