"""`/v1/embeddings`: texts and images, into one space."""

import asyncio
import base64
import threading
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from osler.errors import GenerationCancelledError, PromptError
from osler.serving.body import read_body
from osler.serving.data_url import image_of_url, is_url
from osler.serving.events import unless_hung_up
from osler.serving.failure import ApiError
from osler.serving.gate import Gate
from osler.serving.intake import check_model
from osler.serving.meters import Meters
from osler.serving.replies import json_bytes
from osler.serving.schemas import EmbeddingBody
from osler.serving.settings import ServerSettings
from osler.tasks.encoder import ImageTextEncoder

MAX_INPUTS = 2048  # as OpenAI's
# Short, so that a client that leaves, or whose neighbour is in a hurry, is heard in between.
_TEXTS_AT_ONCE = 64
_IMAGES_AT_ONCE = 4

Rows = NDArray[np.float32]


class EmbeddingEndpoint:
    """An ASGI application.

    Args:
        encoder: what embeds; None answers that there is none.
        settings: the server's.
        gate: its room.
        meters: its metrics.
        encoding: the one thread in which all requests are embedded, batch by batch.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder | None,
        *,
        settings: ServerSettings,
        gate: Gate,
        meters: Meters,
        encoding: Executor,
    ) -> None:
        self._encoder = encoder
        self._settings = settings
        self._gate = gate
        self._meters = meters
        self._encoding = encoding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._encoder is None:
            raise ApiError(404, "this server has no encoder: start it with --encoder")
        with self._gate.entry() as entry:
            entry.take_answers(1)
            body = await read_body(Request(scope, receive), entry, self._settings)
            given_up = threading.Event()
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._encoding, self._reply, self._encoder, body, given_up)
            try:
                reply = await unless_hung_up(receive, work)
            finally:
                given_up.set()
        await Response(reply, media_type="application/json")(scope, receive, send)

    def _reply(self, encoder: ImageTextEncoder, data: bytes, given_up: threading.Event) -> bytes:
        body = EmbeddingBody.model_validate_json(data)
        check_model(body.model, encoder.name)
        body.refuse_unsupported()
        inputs = [body.input] if isinstance(body.input, str) else body.input
        if not 0 < len(inputs) <= MAX_INPUTS:
            raise PromptError(f"input: from 1 to {MAX_INPUTS} texts and images, not {len(inputs)}")
        size = encoder.config.text_config.projection_size
        if body.dimensions not in (None, size):
            raise PromptError(f"dimensions: this encoder's embeddings have {size}, not fewer")
        images = {
            number: image_of_url(text, f"input {number + 1}")
            for number, text in enumerate(inputs)
            if is_url(text)
        }
        texts = {number: text for number, text in enumerate(inputs) if number not in images}
        rows = np.empty((len(inputs), size), np.float32)
        for batch in _batches(list(texts), _TEXTS_AT_ONCE):
            _stop_if(given_up)
            rows[batch] = encoder.embed_texts([texts[number] for number in batch])
        for batch in _batches(list(images), _IMAGES_AT_ONCE):
            _stop_if(given_up)
            rows[batch] = encoder.embed_images([images[number] for number in batch])
        self._meters.embeddings.add(len(texts), kind="text")
        self._meters.embeddings.add(len(images), kind="image")
        tokenizer = encoder.processor.tokenizer
        counts = {number: tokenizer.count(text) for number, text in texts.items()}
        tokens = sum(min(count, tokenizer.length) for count in counts.values())
        entries = [
            {"object": "embedding", "index": n, "embedding": _encoded(row, body.encoding_format)}
            for n, row in enumerate(rows)
        ]
        reply = {
            "object": "list",
            "data": entries,
            "model": encoder.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "osler_notice": encoder.notice,
            "osler_cut_off": [n for n, count in counts.items() if count > tokenizer.length],
        }
        return json_bytes(reply)


def _batches(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _stop_if(given_up: threading.Event) -> None:
    if given_up.is_set():
        raise GenerationCancelledError("the client left")


def _encoded(row: Rows, encoding: str | None) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    numbers: list[float] = row.tolist()
    return numbers
