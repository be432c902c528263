import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

import osler
from osler.errors import (
    GenerationCancelledError,
    ModelNotFoundError,
    PromptError,
    UnreadableFileError,
)
from osler.models.checkpoint import load_medgemma
from osler.models.medgemma import MedGemma
from osler.tasks.answer import NOT_A_DEVICE
from osler.tasks.assistant import Assistant

QUESTION = "What is shown?"
SAMPLING: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0}


@pytest.fixture(scope="module")
def model(medgemma_folder: Path) -> Assistant:
    return osler.load(medgemma_folder)


def test_an_answer_says_where_it_came_from(model: Assistant, picture: Path) -> None:
    answer = model.ask(QUESTION, [picture], max_new_tokens=5)
    assert answer.model == str(model.folder)
    assert answer.version == "1.5"
    assert answer.input_sha256 == (hashlib.sha256(picture.read_bytes()).hexdigest(),)
    assert answer.notice == f"Random weights. {NOT_A_DEVICE}"
    assert str(answer) == f"{answer.text}\n\n{answer.notice}"
    assert len(answer.tokens) == 5
    assert answer.finish_reason == "length"
    assert answer.prompt_tokens > model.config.mm_tokens_per_image
    assert 0 < answer.timings.first_token_s < answer.timings.total_s


def test_the_stream_joined_is_the_text(model: Assistant, picture: Path) -> None:
    stream = model.stream(QUESTION, [picture], seed=3, **SAMPLING)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.answer.text
    assert stream.answer.text == model.ask(QUESTION, [picture], seed=3, **SAMPLING).text


def test_chat_with_one_message_is_ask(model: Assistant, picture: Path) -> None:
    content = [{"type": "image", "image": str(picture)}, {"type": "text", "text": QUESTION}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": content},
    ]
    chatted = model.chat(messages, seed=0, **SAMPLING)
    asked = model.ask(QUESTION, [picture], system="Be brief.", seed=0, **SAMPLING)
    assert chatted.tokens == asked.tokens
    assert chatted.prompt_tokens == asked.prompt_tokens


def test_the_same_seed_gives_the_same_tokens(model: Assistant) -> None:
    answers = [model.ask(QUESTION, seed=seed, **SAMPLING).tokens for seed in (7, 7, 8)]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_images_in_every_form_are_the_same_image(model: Assistant, picture: Path) -> None:
    pil = Picture.open(picture)
    for image in (str(picture), pil, np.asarray(pil)):
        assert model.ask(QUESTION, [image], max_new_tokens=3).tokens == (
            model.ask(QUESTION, [picture], max_new_tokens=3).tokens
        )


def test_squaring_and_pan_and_scan_reach_the_processor(model: Assistant, picture: Path) -> None:
    padded = model.stream(QUESTION, [picture]).prompt
    stretched = model.stream(QUESTION, [picture], squaring="stretch").prompt
    scanned = model.stream(QUESTION, [picture], pan_and_scan=True).prompt
    assert not np.array_equal(padded.pixels, stretched.pixels)
    assert len(padded.ids) == len(stretched.ids)
    assert len(scanned.pixels) >= len(padded.pixels) == 1


def test_logits_are_the_models(model: Assistant, medgemma_folder: Path, picture: Path) -> None:
    prompt = model.stream(QUESTION, [picture]).prompt
    logits = model.logits([list(prompt.ids)], pixel_values=prompt.pixels)
    with torch.inference_mode():
        expected = load_medgemma(medgemma_folder)(
            torch.tensor([list(prompt.ids)]), pixels_NCSS=torch.as_tensor(prompt.pixels)
        )
    assert logits.dtype == torch.float32
    assert logits.shape == (1, len(prompt.ids), 8192)
    torch.testing.assert_close(logits, expected)


def test_logits_heed_the_attention_mask(model: Assistant) -> None:
    alone = model.logits([[2, 900, 901]])
    padded = model.logits([[0, 0, 2, 900, 901]], attention_mask=[[0, 0, 1, 1, 1]])
    torch.testing.assert_close(padded[:, 2:], alone, atol=1e-5, rtol=1e-5)


def test_a_saved_folder_answers_the_same_and_keeps_the_notice(
    model: Assistant, tmp_path: Path, picture: Path
) -> None:
    model.save(tmp_path / "copy")
    copy = osler.load(tmp_path / "copy")
    answer = copy.ask(QUESTION, [picture], seed=1, **SAMPLING)
    assert answer.tokens == model.ask(QUESTION, [picture], seed=1, **SAMPLING).tokens
    assert answer.notice == model.notice


def test_saving_onto_its_own_folder_keeps_everything(model: Assistant, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = osler.load(tmp_path)
    again.save(tmp_path)
    assert osler.load(tmp_path).notice == model.notice
    assert (tmp_path / "tokenizer.json").exists()


def test_a_version_asked_for_wins(medgemma_folder: Path, tmp_path: Path) -> None:
    older = osler.load(medgemma_folder, version="1")
    assert older.ask(QUESTION, max_new_tokens=1).version == "1"
    older.save(tmp_path)
    assert osler.load(tmp_path).config.medgemma_version == "1"


def test_bfloat16_answers(medgemma_folder: Path, picture: Path) -> None:
    model = osler.load(medgemma_folder, dtype="bfloat16")
    assert isinstance(model.model, MedGemma)
    assert model.model.language_model.embed_tokens.weight.dtype == torch.bfloat16
    assert len(model.ask(QUESTION, [picture], max_new_tokens=3).tokens) == 3
    assert model.logits([[2, 5]]).dtype == torch.float32


def test_a_second_question_about_an_image_does_not_read_it_again(
    medgemma_folder: Path, picture: Path
) -> None:
    model = osler.load(medgemma_folder)
    model.ask(QUESTION, [picture], max_new_tokens=2)
    before = model.engine.stats()
    second = model.ask("And the heart?", [picture], max_new_tokens=2)
    known = model.engine.stats().cached_tokens - before.cached_tokens
    assert known >= model.config.mm_tokens_per_image
    assert second.timings.image_encode_s == 0
    assert (
        second.tokens
        == osler.load(medgemma_folder).ask("And the heart?", [picture], max_new_tokens=2).tokens
    )


def test_a_schema_reaches_the_answer(model: Assistant) -> None:
    answer = model.ask(QUESTION, regex="(yes|no)", temperature=1.0, seed=0)
    assert answer.text in ("yes", "no")


def test_a_closed_stream_has_no_answer(model: Assistant) -> None:
    stream = model.stream(QUESTION, **SAMPLING)
    next(stream)
    stream.close()
    assert list(stream) == []
    with pytest.raises(GenerationCancelledError):
        _ = stream.answer


def test_thoughts_go_where_they_are_asked_to(model: Assistant) -> None:
    opening, closing = (model.processor.tokenizer.id_of(f"<unused{n}>") for n in (94, 95))
    thought, answer = (model.processor.tokenizer.encode(t, add_bos=False) for t in ("aa", "bb"))
    script = iter([opening, *thought, closing, *answer, model.config.eos_token_ids[0]])
    heard: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("osler.inference.continuation.sample", lambda *args, **kwargs: next(script))
        stream = model.stream(QUESTION, on_thought=heard.append)
        assert "".join(stream).strip() == "bb"
    assert "".join(heard).strip() == stream.answer.thought.strip() == "aa"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"images": "chest.dcm"}, "a list of images"),
        (
            {"images": ["x.png"], "system": None, "question": [{"role": "user", "content": "?"}]},
            "own",
        ),
    ],
)
def test_arguments_that_make_no_prompt(
    model: Assistant, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PromptError, match=reason):
        model.stream(**{"question": QUESTION, **arguments})


def test_a_missing_image_fails_at_once(model: Assistant) -> None:
    with pytest.raises(UnreadableFileError, match=r"missing\.png: no such file"):
        model.stream(QUESTION, ["missing.png"])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"dtype": "int3"}, PromptError),
        ({"device": "toaster"}, PromptError),
        ({"version": "2"}, PromptError),
        ({"name": "no-such-model"}, ModelNotFoundError),
    ],
)
def test_what_cannot_be_loaded(
    medgemma_folder: Path, arguments: dict[str, str], error: type[Exception]
) -> None:
    name = arguments.pop("name", str(medgemma_folder))
    with pytest.raises(error):
        osler.load(name, **arguments)
