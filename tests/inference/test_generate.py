"""Answers of a model that says what it is told to: text, ends, batches, cancelling."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from osler.errors import NonFiniteError, PromptError
from osler.inference.continuation import Generation, Piece
from osler.inference.engine import Engine
from osler.inference.generate import complete, generate, stream
from osler.inference.limits import Limits
from osler.inference.runner import Chunk
from osler.inference.sampling import SamplingParams
from osler.inference.scheduler import IMAGES_AT_ONCE
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer
from osler.testing.dummy import dummy_config
from osler.testing.runners import ScriptedRunner

IMAGE_TOKEN = dummy_config().image_token_id
GREEDY = SamplingParams(max_new_tokens=60)


def prompt(length: int = 4, images: int = 0, script: int = 0) -> Prompt:
    """A prompt that asks for a script, with images that differ from one another."""
    config = dummy_config()
    ids = [ScriptedRunner.MARK + script, *[110] * (length - 1)]
    ids += [config.image_token_id] * config.mm_tokens_per_image * images
    shades = np.arange(images, dtype=np.float32) + 10 * script
    pixels = np.broadcast_to(shades[:, None, None, None] / 100, (images, 3, 56, 56))
    return Prompt(ids=ids, pixels=pixels.astype(np.float32))


def scripted(tokenizer: Tokenizer, *texts: str) -> Engine:
    """An engine whose model says these texts."""
    return Engine(ScriptedRunner(scripts=[tokenizer.encode(text) for text in texts]), tokenizer)


def calls(engine: Engine) -> list[list[tuple[int, list[int], int]]]:
    """What its runner was asked for."""
    runner = engine._runner
    assert isinstance(runner, ScriptedRunner)
    return runner.calls


def said(tokenizer: Tokenizer, text: str, **settings: Any) -> tuple[list[str], Generation]:
    """The streamed pieces and the result of a model that says `text`."""
    engine = scripted(tokenizer, text)
    params = SamplingParams(**{"max_new_tokens": 200, **settings})
    pieces, events = [], stream(engine, prompt(), params)
    while True:
        try:
            pieces.append(next(events))
        except StopIteration as end:
            return pieces, end.value


def test_streamed_pieces_are_the_text(tokenizer: Tokenizer) -> None:
    text = "The lungs are clear: ≥ 3 €, 🙂."
    pieces, result = said(tokenizer, text)
    assert len(pieces) > 5
    assert all(pieces)
    assert "".join(pieces) == result.text == text
    assert result.thought == ""
    assert result.finish_reason == "stop"
    assert result.ids == (*tokenizer.encode(text, add_bos=False), 1)
    assert result.timings.prompt_tokens == 4
    assert result.timings.new_tokens == len(result.ids)


def test_every_end_token_of_the_configuration_ends_the_answer(tokenizer: Tokenizer) -> None:
    for end in dummy_config().eos_token_ids:
        script = [*tokenizer.encode("clear", add_bos=False), end, 300]
        engine = Engine(ScriptedRunner(scripts=[script]), tokenizer)
        (result,) = complete(engine, [prompt()], GREEDY)
        assert (result.text, result.ids[-1], result.finish_reason) == ("clear", end, "stop")


def test_max_new_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The lungs are clear.", add_bos=False)
    _, result = said(tokenizer, "The lungs are clear.", max_new_tokens=5)
    assert result.ids == tuple(ids[:5])
    assert result.text == tokenizer.decode(ids[:5])
    assert result.finish_reason == "length"


def test_a_character_cut_off_by_max_new_tokens_is_marked(tokenizer: Tokenizer) -> None:
    pieces, result = said(tokenizer, "T🙂", max_new_tokens=3)
    assert "".join(pieces) == result.text == "T\ufffd\ufffd"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["clear"], "The lungs are "),
        (["are cl"], "The lungs "),
        (["s a", "lungs are"], "The lung"),
        (["The"], ""),
        (["€"], "The lungs are clear "),
        (["clear €?", "€!!"], "The lungs are clear €!"),
        (["€!x"], "The lungs are clear €!"),
    ],
)
def test_stop_strings(tokenizer: Tokenizer, stop: list[str], text: str) -> None:
    whole = "The lungs are clear €!"
    pieces, result = said(tokenizer, whole, stop=stop)
    assert "".join(pieces) == result.text == text
    assert result.finish_reason == "stop"
    assert (result.ids[-1] == 1) == (text == whole)


def test_text_held_for_a_stop_string_is_released_at_max_new_tokens(tokenizer: Tokenizer) -> None:
    _, result = said(tokenizer, "TTEEE", max_new_tokens=3, stop=["EE"])
    assert (result.text, result.finish_reason) == ("TTE", "length")
    _, result = said(tokenizer, "TTEEE", stop=["EE"])
    assert (result.text, result.finish_reason) == ("TT", "stop")


def test_thought_is_parted_from_the_answer(tokenizer: Tokenizer) -> None:
    text = "<unused94>thought\nThe heart\nis normal.<unused95>The lungs are clear."
    pieces, result = said(tokenizer, text)
    assert "".join(pieces) == result.text == "The lungs are clear."
    assert result.thought == "The heart\nis normal."


def test_thought_is_streamed_as_such(tokenizer: Tokenizer) -> None:
    engine = scripted(tokenizer, "<unused94>thought\nheart<unused95>clear")
    events = list(generate(engine, [prompt()], GREEDY))
    pieces = [event for event in events if isinstance(event, Piece)]
    assert "".join(p.text for p in pieces if p.is_thought) == "heart"
    assert "".join(p.text for p in pieces if not p.is_thought) == "clear"
    assert isinstance(events[-1], Generation)


def test_a_thought_that_never_closes_is_no_answer(tokenizer: Tokenizer) -> None:
    pieces, result = said(tokenizer, "<unused94>thought\nThe lungs are clear", max_new_tokens=11)
    assert pieces == []
    assert result.text == ""
    assert "The lungs are clear".startswith(result.thought)
    assert result.thought
    assert result.finish_reason == "length"


def test_stop_strings_do_not_look_into_the_thought(tokenizer: Tokenizer) -> None:
    text = "<unused94>thought\nThe lungs<unused95>The heart"
    _, result = said(tokenizer, text, stop=["lungs", "eart"])
    assert (result.thought, result.text) == ("The lungs", "The h")


def test_finished_answers_leave_the_batch(tokenizer: Tokenizer) -> None:
    texts = ["The lungs are clear.", "heart", "", "The heart is normal in size."]
    engine = scripted(tokenizer, *texts)
    prompts = [prompt(length, script=row) for row, length in enumerate((3, 9, 5, 1))]
    results = complete(engine, prompts, GREEDY)
    assert [result.text for result in results] == texts
    assert [result.index for result in results] == [0, 1, 2, 3]
    assert [result.timings.prompt_tokens for result in results] == [3, 9, 5, 1]
    steps = [len(result.ids) for result in results]
    assert [len(call) for call in calls(engine)] == [
        sum(n > step for n in steps) for step in range(max(steps))
    ]


def test_events_of_a_batch_name_their_prompt(tokenizer: Tokenizer) -> None:
    texts = ["The lungs are clear.", "The heart is normal."]
    joined = ["", ""]
    finished: list[int] = []
    engine = scripted(tokenizer, *texts)
    for event in generate(engine, [prompt(), prompt(7, script=1)], GREEDY):
        assert event.index not in finished
        if isinstance(event, Piece):
            joined[event.index] += event.text
        else:
            assert event.text == joined[event.index]
            finished.append(event.index)
    assert sorted(finished) == [0, 1]
    assert joined == texts


def test_no_prompts_no_answers(tokenizer: Tokenizer) -> None:
    assert complete(scripted(tokenizer), [], GREEDY) == []


def test_the_answer_stops_at_the_context_limit(tokenizer: Tokenizer) -> None:
    config = dummy_config(max_position_embeddings=16)
    engine = Engine(ScriptedRunner(config, scripts=[[300] * 50, [301] * 50]), tokenizer)
    short, long = complete(engine, [prompt(6), prompt(15, script=1)], GREEDY)
    assert (len(short.ids), short.finish_reason) == (10, "length")
    assert (len(long.ids), long.finish_reason) == (1, "length")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (prompt(16), "16 tokens; this model takes from 1 to 15"),
        (Prompt(ids=[], pixels=np.zeros((0, 3, 56, 56), np.float32)), "0 tokens"),
        (replace(prompt(3), ids=[2, 7000]), "token id 7000 is not in the model's vocabulary"),
        (replace(prompt(3), ids=[2, -1]), "token id -1 is not"),
        (replace(prompt(3, images=1), ids=[2, 5]), "0 image tokens for 1 images of 4 each"),
        (
            replace(prompt(3, images=1), pixels=np.zeros((1, 3, 8, 8), np.float32)),
            r"images are \(3, 8, 8\); the model takes \(3, 56, 56\)",
        ),
        (
            replace(prompt(3, images=1), ids=[*prompt(3, images=1).ids[:-1], 5, IMAGE_TOKEN]),
            "the tokens of an image do not stand together",
        ),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused_before_any_work(
    tokenizer: Tokenizer, bad: Prompt, message: str
) -> None:
    runner = ScriptedRunner(dummy_config(max_position_embeddings=16), scripts=[[300], [300]])
    engine = Engine(runner, tokenizer)
    with pytest.raises(PromptError, match=message):
        generate(engine, [prompt(3), bad], GREEDY)
    with pytest.raises(PromptError, match=message):
        stream(engine, bad, GREEDY)
    with pytest.raises(PromptError, match=message):
        engine.submit(bad, GREEDY)
    assert not engine.stats().waiting
    assert runner.calls == []


def test_a_text_model_refuses_images(tokenizer: Tokenizer) -> None:
    runner = ScriptedRunner(replace(dummy_config(), vision_config=None), scripts=[[300]])
    engine = Engine(runner, tokenizer)
    with pytest.raises(PromptError, match="this model reads text only"):
        generate(engine, [prompt(images=1)], GREEDY)
    (result,) = complete(engine, [prompt()], GREEDY)
    assert len(result.ids) == 2


def test_images_are_embedded_a_few_at_a_time(tokenizer: Tokenizer) -> None:
    runner = ScriptedRunner(scripts=[[300] * 5] * 3)
    prompts = [prompt(images=IMAGES_AT_ONCE + 1), prompt(script=1), prompt(images=1, script=2)]
    complete(Engine(runner, tokenizer), prompts, GREEDY)
    assert runner.images_at_once == [IMAGES_AT_ONCE, 1, 1]


def test_the_image_token_is_never_said(tokenizer: Tokenizer) -> None:
    for params in (GREEDY, SamplingParams(temperature=1.0, seed=0)):
        engine = Engine(ScriptedRunner(scripts=[[IMAGE_TOKEN] * 20]), tokenizer)
        (result,) = complete(engine, [prompt()], params)
        assert IMAGE_TOKEN not in result.ids


@dataclass
class CancellingRunner(ScriptedRunner):
    """Sets `cancel` in the middle of the forward call, or image, that is named."""

    cancel: threading.Event = field(default_factory=threading.Event)
    call: int = -1
    image: int = -1

    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        if len(self.calls) == self.call:
            self.cancel.set()
        return super().forward(chunks)

    def embed_images(self, pixels_NCSS: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(self.images_at_once) == self.image:
            self.cancel.set()
        return super().embed_images(pixels_NCSS)


def cancelled(
    tokenizer: Tokenizer, images: int = 0, length: int = 7, **when: int
) -> tuple[CancellingRunner, list[Generation]]:
    script = tokenizer.encode("The lungs are clear.", add_bos=False)
    runner = CancellingRunner(scripts=[script, script[:2]], **when)  # type: ignore[arg-type]
    prompts = [prompt(images=images), prompt(length, script=1)]
    engine = Engine(runner, tokenizer)
    generations = complete(engine, prompts, GREEDY, cancel=runner.cancel)
    assert engine.stats().running == engine.stats().pages_used == 0
    return runner, generations


def test_cancelled_before_the_start_does_no_work(tokenizer: Tokenizer) -> None:
    cancel = threading.Event()
    cancel.set()
    runner = ScriptedRunner(scripts=[[300]])
    engine = Engine(runner, tokenizer)
    (result,) = complete(engine, [prompt(images=1)], GREEDY, cancel=cancel)
    assert (result.text, result.ids, result.finish_reason) == ("", (), "cancelled")
    assert runner.calls == runner.images_at_once == []


def test_cancelled_between_images(tokenizer: Tokenizer) -> None:
    runner, results = cancelled(tokenizer, images=3 * IMAGES_AT_ONCE, image=0)
    assert len(runner.images_at_once) == 1
    assert runner.calls == []
    assert [result.finish_reason for result in results] == ["cancelled"] * 2


def test_cancelled_during_prefill(tokenizer: Tokenizer) -> None:
    runner, results = cancelled(tokenizer, call=0)
    assert [len(call) for call in runner.calls] == [2]
    assert [result.ids for result in results] == [(), ()]
    assert [result.finish_reason for result in results] == ["cancelled"] * 2


def test_cancelled_between_the_chunks_of_a_prompt(tokenizer: Tokenizer) -> None:
    length = 2 * Limits().step_tokens
    runner = CancellingRunner(dummy_config(4096), scripts=[[300]], call=0)
    engine = Engine(runner, tokenizer)
    (result,) = complete(engine, [prompt(length)], GREEDY, cancel=runner.cancel)
    assert result.finish_reason == "cancelled"
    assert len(runner.calls) == 1


def test_cancelled_between_tokens_keeps_what_is_finished(tokenizer: Tokenizer) -> None:
    runner, (unfinished, finished) = cancelled(tokenizer, call=4)
    assert len(runner.calls) == 5
    assert finished.finish_reason == "stop"
    assert unfinished.finish_reason == "cancelled"
    assert len(unfinished.ids) == 4
    assert unfinished.text == tokenizer.decode(unfinished.ids)


def test_closing_the_stream_ends_the_work_and_frees_its_pages(tokenizer: Tokenizer) -> None:
    engine = scripted(tokenizer, "The lungs are clear.")
    events = stream(engine, prompt(), GREEDY)
    assert engine.stats().waiting == 0  # work is handed in when it is wanted
    next(events)
    assert engine.stats().pages_used == 1
    before = len(calls(engine))
    events.close()
    assert engine.stats().running == engine.stats().pages_used == 0
    assert len(calls(engine)) == before


def test_scores_that_are_not_finite_end_in_an_error(tokenizer: Tokenizer) -> None:
    class BrokenRunner(ScriptedRunner):
        def scores(self, history: list[int]) -> NDArray[np.float32]:
            return super().scores(history) * np.float32(np.nan)

    engine = Engine(BrokenRunner(scripts=[[300]]), tokenizer)
    with pytest.raises(NonFiniteError, match="position 4"):
        complete(engine, [prompt()], GREEDY)
    assert engine.stats().running == engine.stats().pages_used == 0
