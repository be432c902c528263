"""Messages to the text of a prompt, in Gemma's template.

    <bos><start_of_turn>user
    {system}

    {content}<end_of_turn>
    <start_of_turn>model
    {answer}<end_of_turn>
    ...
    <start_of_turn>model

There is no system turn: a system message goes in front of the first user turn. The assistant is
called `model`. Texts are stripped, the system's is not.

What a message says is never obeyed as control: a `<start_of_turn>` or `<image_soft_token>` in a
message, which may well come out of somebody's record, is spelt in letters. `transformers` does so
with `sanitize_control_tokens=True` and otherwise lets a text begin turns and stand for images.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from osler.errors import PromptError
from osler.preprocess.sources import ImageSource
from osler.preprocess.tokenizer import END_OF_TURN, START_OF_TURN

Message = Mapping[str, Any]


@dataclass(frozen=True)
class ImagePart:
    """An image's place in a turn."""

    source: ImageSource


@dataclass(frozen=True)
class Turn:
    """One side's say: texts and images in order; no two texts are neighbours."""

    role: Literal["user", "model"]
    parts: tuple[str | ImagePart, ...]


class Span(NamedTuple):
    """A stretch of the prompt; in a literal one, control pieces are letters."""

    text: str
    is_literal: bool


def read_turns(messages: Sequence[Message]) -> list[Turn]:
    """Check messages of the Hugging Face form and fold the system's into the first turn.

    Args:
        messages: `{"role": ..., "content": ...}`, roles "system" (first only), "user" and
            "assistant" or "model", the last one "user". Content is a text or a list of
            `{"type": "text", "text": ...}` and `{"type": "image", "image": ...}`.

    Returns:
        The turns, user first and last.

    Raises:
        PromptError: messages that are none, out of order, empty or of another form.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise PromptError("messages: not a list of messages")
    turns: list[Turn] = []
    system = ""
    for number, message in enumerate(messages, start=1):
        where = f"message {number}"
        role, parts = _role_and_parts(message, where)
        if role == "system" and number == 1:
            system = _system_text(parts, where)
            continue
        due = "model" if len(turns) % 2 else "user"
        if {"assistant": "model"}.get(role, role) != due:
            raise PromptError(
                f"{where}: role {role!r} where {due!r} is due; one system message may come "
                "first, then user and assistant take turns"
            )
        texts = [part.strip() if isinstance(part, str) else part for part in parts]
        if due == "user":
            if not any(texts):
                raise PromptError(f"{where}: says nothing")
            turns.append(Turn("user", _joined([system, *texts])))
            system = ""
        else:
            turns.append(Turn("model", _joined(texts)))
    if not turns or turns[-1].role != "user":
        raise PromptError("messages: the last one must be the user's")
    return turns


def render_chat(
    turns: Sequence[Turn], image_texts: Sequence[str], *, bos: str, control_pieces: Collection[str]
) -> list[Span]:
    """Write turns out as a prompt that the model is to go on from.

    Args:
        turns: what `read_turns` gives.
        image_texts: what stands for each image, in order.
        bos: the piece that a prompt begins with.
        control_pieces: what messages may not use.

    Returns:
        Spans in order, no two plain ones neighbours; their texts joined are the prompt.
    """
    control = re.compile("|".join(map(re.escape, sorted(control_pieces, key=len, reverse=True))))
    images = iter(image_texts)
    spans: list[Span] = []
    for text, is_literal in _pieces(turns, images, bos, control):
        if not text:
            continue
        if spans and not is_literal and not spans[-1].is_literal:
            text, is_literal = spans.pop().text + text, False
        spans.append(Span(text, is_literal))
    return spans


def _pieces(
    turns: Sequence[Turn], images: Iterator[str], bos: str, control: re.Pattern[str]
) -> Iterator[tuple[str, bool]]:
    yield bos, False
    for turn in turns:
        yield f"{START_OF_TURN}{turn.role}\n", False
        for part in turn.parts:
            if isinstance(part, ImagePart):
                yield next(images), False
                continue
            end = 0
            for found in control.finditer(part):
                yield part[end : found.start()], False
                yield found.group(), True
                end = found.end()
            yield part[end:], False
        yield f"{END_OF_TURN}\n", False
    yield f"{START_OF_TURN}model\n", False


def _role_and_parts(message: Message, where: str) -> tuple[str, list[str | ImagePart]]:
    if not isinstance(message, Mapping):
        raise PromptError(f"{where}: not an object with role and content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise PromptError(f"{where}: no role")
    if isinstance(content, str):
        return role, [content]
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise PromptError(f"{where}: content is neither a text nor a list")
    return role, [_part(item, where) for item in content]


def _part(item: Any, where: str) -> str | ImagePart:
    kind = item.get("type") if isinstance(item, Mapping) else None
    if kind == "text":
        if isinstance(text := item.get("text"), str):
            return text
        raise PromptError(f"{where}: a text item has no text")
    if kind == "image":
        if (source := item.get("image")) is not None:
            return ImagePart(source)
        raise PromptError(f"{where}: an image item has no image")
    raise PromptError(f"{where}: content of type {kind!r}; Osler takes 'text' and 'image'")


def _system_text(parts: Sequence[str | ImagePart], where: str) -> str:
    if len(parts) != 1 or not isinstance(parts[0], str):
        raise PromptError(f"{where}: a system message is one text")
    return f"{parts[0]}\n\n"


def _joined(parts: Sequence[str | ImagePart]) -> tuple[str | ImagePart, ...]:
    """Make neighbouring texts one, so that no control piece hides in two of them."""
    joined: list[str | ImagePart] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return tuple(joined)
