"""`/v1/embeddings`: texts and images in one space."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from osler.preprocess.processor import Processor
from osler.preprocess.sources import ImageFile
from osler.tasks.encoder import ImageTextEncoder
from tests.serving.conftest import client_of, data_url, running, served_by
from tests.serving.scripted import ScriptedEngine


@pytest.fixture(scope="module")
def client(processor: Processor, encoder: ImageTextEncoder) -> Iterator[openai.OpenAI]:
    served = served_by(ScriptedEngine(processor.tokenizer), processor, encoder)
    with running(served) as url, client_of(url) as client:
        yield client


@pytest.fixture
def embed(client: openai.OpenAI, encoder: ImageTextEncoder) -> Any:
    def embed(inputs: Any, **more: Any) -> Any:
        return client.embeddings.create(model=encoder.name, input=inputs, **more)

    return embed


def test_texts_and_images_stand_where_the_encoder_puts_them(
    embed: Any, encoder: ImageTextEncoder, png: bytes, dicom: bytes
) -> None:
    images = [data_url(png), data_url(dicom, "application/dicom")]
    inputs = ["normal chest X-ray", images[0], "data: none were available", images[1]]
    reply = embed(inputs)
    rows = np.array([entry.embedding for entry in reply.data], np.float32)
    texts = encoder.embed_texts([inputs[0], inputs[2]])
    seen = encoder.embed_images([ImageFile(png), ImageFile(dicom)])
    np.testing.assert_allclose(rows[[0, 2]], texts, atol=1e-6)
    np.testing.assert_allclose(rows[[1, 3]], seen, atol=1e-6)
    assert [entry.index for entry in reply.data] == [0, 1, 2, 3]
    assert reply.osler_notice == encoder.notice
    assert reply.osler_cut_off == []


def test_both_encodings_are_the_same_numbers(embed: Any) -> None:
    # The client asks for base64 unless it is told otherwise, and takes it apart itself.
    assert embed("pneumonia").data == embed("pneumonia", encoding_format="float").data


def test_long_texts_are_cut_off_and_it_is_said(embed: Any) -> None:
    reply = embed(["short", "lung " * 200, "clear"])
    assert reply.osler_cut_off == [1]
    assert 64 < reply.usage.prompt_tokens < 100


def test_models_list_the_encoder(client: openai.OpenAI, encoder: ImageTextEncoder) -> None:
    names = {model.id: model.model_extra for model in client.models.list()}
    assert set(names) == {"scripted", encoder.name}
    assert (names[encoder.name] or {})["osler_endpoints"] == ["/v1/embeddings"]


@pytest.mark.parametrize(
    ("inputs", "more", "reason"),
    [
        ([], {}, "from 1 to 2048"),
        (["a"] * 2049, {}, "from 1 to 2048"),
        (["a"], {"dimensions": 5}, "dimensions"),
        ([[1, 2, 3]], {}, "input"),
        (["https://example.org/a.png"], {}, "fetches nothing"),
        (["data:image/gif;base64,AAAA"], {}, "input 1: its type"),
        (["a", "data:image/png;base64,AAAA"], {}, "input 2: neither DICOM nor"),
        (["a"], {"extra_body": {"truncate": True}}, "'truncate' is not supported"),
    ],
)
def test_what_is_refused(embed: Any, inputs: Any, more: Any, reason: str) -> None:
    with pytest.raises(openai.BadRequestError, match=reason):
        embed(inputs, **more)


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="scripted", input="a")


def test_a_server_without_an_encoder_says_so(url: str) -> None:
    with client_of(url) as client, pytest.raises(openai.NotFoundError, match="with --encoder"):
        client.embeddings.create(model="scripted", input="a")
