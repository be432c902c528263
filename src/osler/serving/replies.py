"""What answers look like in OpenAI's form, whole and in pieces."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import osler
from osler.inference.continuation import Generation, Piece
from osler.inference.sampling import TokenLogprob
from osler.preprocess.tokenizer import Tokenizer
from osler.serving.token_texts import TokenTexts

Json = dict[str, Any]

# What a typed client expects; the others mean that there would have been more, like "length".
_FINISH_REASONS = ("stop", "length")


@dataclass
class Progress:
    """What of one choice has come so far.

    Attributes:
        text: of the answer, without the thought.
        logprobs: of the answer's tokens, where they were asked for.
        told: how many tokens' logprobs came with pieces, the thought's among them.
        generation: the whole, once it has come.
    """

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    told: int = 0
    generation: Generation | None = None

    def take(self, event: Piece | Generation) -> tuple[TokenLogprob, ...]:
        """Take an event in, and give the logprobs that belong to the answer and came with it."""
        if isinstance(event, Generation):
            self.generation = event
            # The end's: a stop string, an end token.
            fresh = (event.logprobs or ())[self.told :]
        else:
            self.told += len(event.logprobs)
            fresh = () if event.is_thought else event.logprobs
            self.text += "" if event.is_thought else event.text
        self.logprobs += fresh
        return fresh


class Form(ABC):
    """One of the two protocols' way to write an answer."""

    prefix: str
    object_name: str
    chunk_name: str

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokens = TokenTexts(tokenizer)

    @abstractmethod
    def opening(self, index: int) -> Json | None:
        """What a stream says of a choice before its text."""

    @abstractmethod
    def step(self, index: int, event: Piece | Generation, before: Progress) -> Json:
        """What a stream says of a choice when something comes."""

    @abstractmethod
    def whole(self, index: int, progress: Progress, generation: Generation) -> Json:
        """A whole choice."""


class ChatForm(Form):
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"
    object_name = "chat.completion"
    chunk_name = "chat.completion.chunk"

    def opening(self, index: int) -> Json | None:
        """Who speaks."""
        return {"index": index, "delta": {"role": "assistant", "content": ""}, **_unfinished()}

    def step(self, index: int, event: Piece | Generation, before: Progress) -> Json:
        """A piece of the answer or of the thought before it, or why it ended."""
        logprobs = before.take(event)
        said = {"logprobs": self._tokens.chat(logprobs) if logprobs else None}
        if isinstance(event, Generation):
            return {"index": index, "delta": {}, **said, **_finished(event)}
        kind = "reasoning_content" if event.is_thought else "content"
        return {"index": index, "delta": {kind: event.text}, **said, **_unfinished()}

    def whole(self, index: int, progress: Progress, generation: Generation) -> Json:
        """The message."""
        message = {"role": "assistant", "content": generation.text, "refusal": None}
        if generation.thought:
            message["reasoning_content"] = generation.thought
        asked = generation.logprobs is not None
        logprobs = self._tokens.chat(progress.logprobs) if asked else None
        return {"index": index, "message": message, "logprobs": logprobs, **_finished(generation)}


class CompletionForm(Form):
    """`/v1/completions`."""

    prefix = "cmpl-"
    object_name = "text_completion"
    chunk_name = "text_completion"

    def opening(self, index: int) -> Json | None:
        """Nothing."""
        return None

    def step(self, index: int, event: Piece | Generation, before: Progress) -> Json:
        """A piece of the answer or of the thought before it, or why it ended."""
        offset = len(before.text)
        logprobs = before.take(event)
        said: Json = {"logprobs": None}
        if logprobs:
            said["logprobs"] = self._tokens.completion(logprobs, offset)
        if isinstance(event, Generation):
            return {"index": index, "text": "", **said, **_finished(event)}
        if event.is_thought:
            said["reasoning_content"] = event.text
        text = "" if event.is_thought else event.text
        return {"index": index, "text": text, **said, **_unfinished()}

    def whole(self, index: int, progress: Progress, generation: Generation) -> Json:
        """The text."""
        choice: Json = {"index": index, "text": generation.text, "logprobs": None}
        if generation.thought:
            choice["reasoning_content"] = generation.thought
        if generation.logprobs is not None:
            choice["logprobs"] = self._tokens.completion(progress.logprobs, 0)
        return choice | _finished(generation)


class Reply:
    """One request's answers in one form, as they come.

    Args:
        form: of the protocol.
        request_id: makes the reply's id.
        choices: how many answers there will be.
        prompts: how many different prompts they are of.
        model: the model's name in the API.
        notice: what a reader must know of the model; said once a reply.
    """

    def __init__(
        self,
        form: Form,
        *,
        request_id: str,
        choices: int,
        prompts: int,
        model: str,
        notice: str,
    ) -> None:
        self._form = form
        self._head: Json = {
            "id": form.prefix + request_id,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"osler-{osler.__version__}",
        }
        self._notice = notice
        self._prompts = prompts
        self._choices = [Progress() for _ in range(choices)]

    def opening(self) -> bytes:
        """The first chunk of a stream, with the notice."""
        said = [self._form.opening(index) for index in range(len(self._choices))]
        return self._chunk([one for one in said if one], osler_notice=self._notice)

    def take(self, index: int, event: Piece | Generation) -> None:
        """Take an event in, for the whole."""
        self._choices[index].take(event)

    def step(self, index: int, event: Piece | Generation) -> bytes:
        """Take an event in, and make a chunk of a stream of it."""
        return self._chunk([self._form.step(index, event, self._choices[index])])

    def closing(self) -> bytes:
        """The last chunk of a stream, with the token counts."""
        return self._chunk([], usage=usage(self._generations(), self._prompts))

    def whole(self) -> bytes:
        """The reply to a request that wants it in one, once all has come, as JSON."""
        pairs = zip(self._choices, self._generations(), strict=True)
        return json_bytes(
            {
                **self._head,
                "object": self._form.object_name,
                "choices": [self._form.whole(i, *pair) for i, pair in enumerate(pairs)],
                "usage": usage(self._generations(), self._prompts),
                "osler_notice": self._notice,
            }
        )

    def _generations(self) -> list[Generation]:
        return [one.generation for one in self._choices if one.generation is not None]

    def _chunk(self, choices: list[Json], **more: Any) -> bytes:
        return sse({**self._head, "object": self._form.chunk_name, "choices": choices, **more})


def sse(value: Json) -> bytes:
    """A server-sent event."""
    return b"data: " + json_bytes(value) + b"\n\n"


def json_bytes(value: Json) -> bytes:
    """A value as JSON on one line."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def usage(generations: Sequence[Generation], prompts: int) -> Json:
    """How many tokens went in and came out; a prompt with several answers counts once."""
    each = max(len(generations) // prompts, 1)
    asked = sum(one.timings.prompt_tokens for one in generations[::each])
    answered = sum(one.timings.new_tokens for one in generations)
    cached = sum(one.cached_tokens for one in generations[::each])
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _unfinished() -> Json:
    return {"finish_reason": None}


def _finished(generation: Generation) -> Json:
    reason = generation.finish_reason
    if reason in _FINISH_REASONS:
        return {"finish_reason": reason}
    return {"finish_reason": "length", "osler_finish_reason": reason}
