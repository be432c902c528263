"""Teachers on this machine and elsewhere."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from osler.errors import PromptError
from osler.inference.remote_address import remote_address
from osler.inference.remote_scores import ScoredAnswer, ScoredToken
from osler.inference.sampling import TokenLogprob
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor
from osler.serving.token_texts import TokenTexts
from osler.tasks.remote import RemoteAssistant, connect
from osler.testing.models import randomise
from osler.testing.packs import one_of_each_class
from osler.testing.tokenizers import tiny_medgemma_folder
from osler.training.conversation import TrainingSequence
from osler.training.images import square, to_model_range
from osler.training.teachers import TokenTable, Told, taught, taught_by_server

IMAGE = one_of_each_class()[0].image_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_medgemma_folder(path)
    return path


@pytest.fixture(scope="module")
def processor(folder: Path) -> Processor:
    return Processor.from_folder(folder)


@pytest.fixture(scope="module")
def model(processor: Processor) -> MedGemma:
    model = MedGemma(processor.config).eval()
    randomise(model)
    return model


def some_told(processor: Processor) -> list[Told]:
    config = processor.config
    image = [config.boi_token_id, *[config.image_token_id] * 4, config.eoi_token_id]
    return [
        Told(sequence=TrainingSequence(ids=[2, 7, 8, 9, 10], learn=[True] * 5)),
        Told(
            sequence=TrainingSequence(ids=[2, *image, 30, 31], learn=[False] * 7 + [True] * 2),
            image=IMAGE,
        ),
        Told(sequence=TrainingSequence(ids=[2, 3], learn=[False] * 2)),
        Told(sequence=TrainingSequence(ids=[2, 40, 41, 42], learn=[False, False, True, False])),
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_teacher_here_keeps_its_highest_scores(
    model: MedGemma, processor: Processor, batch_size: int
) -> None:
    told = some_told(processor)
    found = list(taught(model, told, kept=5, seed=None, batch_size=batch_size))
    assert [one.ids_L.tolist() for one in found] == [told[i].sequence.ids for i in (0, 1, 3)]
    assert [len(one.top_ids_TK) for one in found] == [4, 2, 1]
    assert [bool(one.image) for one in found] == [False, True, False]
    for one in found:
        pixels = None
        if one.image:
            pixels = to_model_range(torch.from_numpy(square(one.image, 56).copy()))[None]
        with torch.no_grad():
            logits = model(one.ids_L[None], pixels_NCSS=pixels)[0, :-1][one.learn_L[1:]]
        best = logits.topk(5, dim=1)
        assert torch.equal(best.indices, one.top_ids_TK)
        torch.testing.assert_close(best.values, one.top_logits_TK.float(), rtol=0.01, atol=0.01)


def test_drawn_tokens_follow_the_seed(model: MedGemma, processor: Processor) -> None:
    first, again, other = (
        list(taught(model, some_told(processor), kept=20, seed=seed)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a.top_ids_TK, b.top_ids_TK) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].top_ids_TK, other[0].top_ids_TK)


def test_tokens_are_found_by_what_a_server_calls_them(processor: Processor) -> None:
    tokenizer = processor.tokenizer
    table, texts = TokenTable(tokenizer), TokenTexts(tokenizer)
    for text in ("The heart is normal.", "Grüße, 37 °C ≥ 5!\n\n- one", "a  b"):
        ids = tokenizer.encode(text)
        entries = texts.chat([TokenLogprob(token, 0.0, ()) for token in ids])["content"]
        named = [ScoredToken(bytes(entry["bytes"]), ()) for entry in entries]
        found = table.taught([2], ScoredAnswer(tokens=tuple(named), is_complete=False), 3)
        assert found.ids_L.tolist() == [2, *ids]


def test_a_servers_answer_becomes_a_sequence(processor: Processor) -> None:
    tokenizer = processor.tokenizer
    the, yes, end = (tokenizer.encode(text) for text in ("The", "Yes", "<end_of_turn>"))
    assert len(the) == len(yes) == 1, "choose other words"
    answer = ScoredAnswer(
        tokens=(
            ScoredToken(b"The", ((b"The", -0.5), (b"Yes", -1.0), (b"\xff none", -2.0))),
            ScoredToken(b"Yes", ()),
        ),
        is_complete=True,
    )
    found = TokenTable(tokenizer).taught([2, 5], answer, 3)
    assert found.ids_L.tolist() == [2, 5, *the, *yes, *end]
    assert found.learn_L.tolist() == [False, False, True, True, True]
    assert found.top_ids_TK[0, :2].tolist() == [*the, *yes]
    assert found.top_logits_TK[0].tolist() == [-0.5, -1.0, -torch.inf]
    assert found.top_ids_TK[1:, 0].tolist() == [*yes, *end]
    assert found.top_logits_TK[1:].isneginf().sum() == 4


def test_another_tokenizer_is_refused(processor: Processor) -> None:
    answer = ScoredAnswer(tokens=(ScoredToken(b" cardiomegaly-ish", ()),), is_complete=True)
    with pytest.raises(PromptError, match="student's tokenizer"):
        TokenTable(processor.tokenizer).taught([2], answer, 3)


def server(asked: list[dict[str, Any]], processor: Processor) -> RemoteAssistant:
    """A server that says "The lungs" to everything."""
    ids = processor.tokenizer.encode("The lungs")
    texts = [processor.tokenizer.decode([token]) for token in ids]

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/models"):
            return httpx2.Response(200, json={"data": [{"id": "teacher"}]})
        asked.append(json.loads(request.content))
        entries = [
            {"token": text, "logprob": -0.1, "top_logprobs": [{"token": text, "logprob": -0.1}]}
            for text in texts
        ]
        chunks = [
            {"choices": [{"delta": {"content": "x"}, "logprobs": {"content": entries}}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        ]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return httpx2.Response(200, text="".join([*lines, "data: [DONE]\n\n"]))

    transport = httpx2.MockTransport(handler)
    return connect(remote_address("http://127.0.0.1:8000"), transport=transport)


def test_a_server_answers_questions_with_and_without_images(processor: Processor) -> None:
    asked: list[dict[str, Any]] = []
    questions = [("Is it normal?", b""), ("Describe this image.", IMAGE)]
    found = list(taught_by_server(server(asked, processor), questions, processor, kept=4))
    assert [body["top_logprobs"] for body in asked] == [4, 4]
    assert asked[0]["seed"] != asked[1]["seed"]
    assert asked[1]["messages"][0]["content"][0]["type"] == "image_url"
    for one, (question, image) in zip(found, questions, strict=True):
        text = processor.tokenizer.decode(one.ids_L.tolist(), skip_special=False)
        assert f"{question}<end_of_turn>\n<start_of_turn>model\nThe lungs<end_of_turn>" in text
        assert one.image == image
        assert (one.ids_L == processor.config.image_token_id).sum() == (4 if image else 0)


def test_more_tokens_than_the_protocol_has(processor: Processor) -> None:
    with pytest.raises(PromptError, match="20 tokens"):
        next(taught_by_server(server([], processor), [("?", b"")], processor, kept=256))
