"""What answers look like in OpenAI's form, whole and in pieces."""

import json
import time
from collections.abc import Sequence
from typing import Any, Protocol

import osler
from osler.inference.continuation import Generation, Piece
from osler.preprocess.tokenizer import Tokenizer
from osler.serving.token_texts import TokenTexts

Json = dict[str, Any]

# What a typed client expects; the others mean that there would have been more, like "length".
_FINISH_REASONS = ("stop", "length")


class Form(Protocol):
    """One of the two protocols' way to write an answer."""

    prefix: str
    object_name: str
    chunk_name: str

    def opening(self, index: int) -> Json | None:
        """What a stream says of an answer before its text."""

    def piece(self, index: int, piece: Piece) -> Json:
        """A piece of an answer."""

    def ending(self, index: int, generation: Generation) -> Json:
        """What a stream says of an answer behind its text."""

    def whole(self, index: int, generation: Generation) -> Json:
        """A whole answer."""


class ChatForm:
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"
    object_name = "chat.completion"
    chunk_name = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokens = TokenTexts(tokenizer)

    def opening(self, index: int) -> Json | None:
        """Who speaks."""
        return _choice(index, delta={"role": "assistant", "content": ""})

    def piece(self, index: int, piece: Piece) -> Json:
        """Text of the answer, or of the thought before it."""
        kind = "reasoning_content" if piece.is_thought else "content"
        return _choice(index, delta={kind: piece.text})

    def ending(self, index: int, generation: Generation) -> Json:
        """Why it ended, and the scores of its tokens."""
        return _ended(index, generation, self._tokens.chat(generation), delta={})

    def whole(self, index: int, generation: Generation) -> Json:
        """The message."""
        message = {"role": "assistant", "content": generation.text, "refusal": None}
        if generation.thought:
            message["reasoning_content"] = generation.thought
        return _ended(index, generation, self._tokens.chat(generation), message=message)


class CompletionForm:
    """`/v1/completions`."""

    prefix = "cmpl-"
    object_name = "text_completion"
    chunk_name = "text_completion"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokens = TokenTexts(tokenizer)

    def opening(self, index: int) -> Json | None:
        """Nothing."""
        return None

    def piece(self, index: int, piece: Piece) -> Json:
        """Text of the answer, or of the thought before it."""
        if piece.is_thought:
            return _choice(index, text="", reasoning_content=piece.text)
        return _choice(index, text=piece.text)

    def ending(self, index: int, generation: Generation) -> Json:
        """Why it ended, and the scores of its tokens."""
        return _ended(index, generation, self._tokens.completion(generation), text="")

    def whole(self, index: int, generation: Generation) -> Json:
        """The text."""
        thought = {"reasoning_content": generation.thought} if generation.thought else {}
        return _ended(
            index, generation, self._tokens.completion(generation), text=generation.text, **thought
        )


class Reply:
    """One request's answers in one form.

    Args:
        form: of the protocol.
        request_id: makes the reply's id.
        model: the model's name in the API.
        notice: what a reader must know of the model; said once a reply.
    """

    def __init__(self, form: Form, *, request_id: str, model: str, notice: str) -> None:
        self._form = form
        self._head: Json = {
            "id": form.prefix + request_id,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"osler-{osler.__version__}",
        }
        self._notice = notice

    def whole(self, generations: Sequence[Generation], prompts: int) -> Json:
        """The reply to a request that wants it in one.

        Args:
            generations: in the order of the choices.
            prompts: how many different prompts there were.
        """
        return {
            **self._head,
            "object": self._form.object_name,
            "choices": [self._form.whole(i, one) for i, one in enumerate(generations)],
            "usage": usage(generations, prompts),
            "osler_notice": self._notice,
        }

    def opening(self, choices: int) -> bytes:
        """The first chunk of a stream, with the notice."""
        said = [self._form.opening(index) for index in range(choices)]
        return self._chunk([one for one in said if one], osler_notice=self._notice)

    def event(self, index: int, event: Piece | Generation) -> bytes:
        """A chunk of a stream."""
        if isinstance(event, Generation):
            return self._chunk([self._form.ending(index, event)])
        return self._chunk([self._form.piece(index, event)])

    def closing(self, generations: Sequence[Generation], prompts: int) -> bytes:
        """The chunk with the token counts."""
        return self._chunk([], usage=usage(generations, prompts))

    def _chunk(self, choices: list[Json], **more: Any) -> bytes:
        return sse({**self._head, "object": self._form.chunk_name, "choices": choices, **more})


def sse(value: Json) -> bytes:
    """A server-sent event."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return b"data: " + text.encode() + b"\n\n"


def usage(generations: Sequence[Generation], prompts: int) -> Json:
    """How many tokens went in and came out; a prompt with several answers counts once."""
    each = max(len(generations) // prompts, 1)
    asked = sum(one.timings.prompt_tokens for one in generations[::each])
    answered = sum(one.timings.new_tokens for one in generations)
    cached = 0
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _choice(index: int, **more: Any) -> Json:
    return {"index": index, **more, "finish_reason": None}


def _ended(index: int, generation: Generation, logprobs: Json | None, **more: Any) -> Json:
    reason = generation.finish_reason
    choice = _choice(index, **more, logprobs=logprobs)
    choice["finish_reason"] = reason if reason in _FINISH_REASONS else "length"
    if reason not in _FINISH_REASONS:
        choice["osler_finish_reason"] = reason
    return choice
