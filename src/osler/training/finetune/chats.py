"""Conversations, one to a line, in the Hugging Face form.

    {"messages": [{"role": "user", "content": [{"type": "image", "image": "scans/1.png"},
                                               {"type": "text", "text": "What is it?"}]},
                  {"role": "assistant", "content": "A cyst."}]}

Images are paths, from the file's folder or from the root. Every answer of the assistant is learnt.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from osler.errors import InputError, PromptError
from osler.preprocess.chat import ImagePart, Message, read_turns
from osler.training.finetune.examples import (
    BadRows,
    Example,
    Examples,
    existing_image,
    refuse_file,
)


def read_chats(path: Path) -> Examples:
    """Read a JSONL file.

    Raises:
        UnreadableFileError: not UTF-8, no lines, or lines that are no such conversation: the
            message has their numbers.
    """
    bad = BadRows(path)
    rows: list[Example] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    rows.append(_example(number, line, path.parent))
                except InputError as error:
                    bad.add(number, error)
    except UnicodeDecodeError:
        refuse_file(path, "not UTF-8 text")
    bad.refuse_if_any()
    if not rows:
        refuse_file(path, "no conversations in it")
    return Examples(path=path, rows=tuple(rows))


def _example(number: int, line: str, folder: Path) -> Example:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise PromptError("not JSON") from None
    messages = value.get("messages") if isinstance(value, Mapping) else None
    if not isinstance(messages, list) or not messages:
        raise PromptError('not an object with "messages", a list')
    *asked, last = messages
    if not isinstance(last, Mapping) or last.get("role") not in ("assistant", "model"):
        raise PromptError("the last message must be the assistant's")
    if not _says_something(last.get("content")):
        raise PromptError("the last message says nothing, or not in text")
    read_turns(asked)  # refuses what makes no prompt
    placed = [_with_paths(message, folder) for message in messages]
    turns = read_turns(placed[:-1])
    images = [part.source for turn in turns for part in turn.parts if isinstance(part, ImagePart)]
    return Example(
        line=number,
        messages=tuple(placed),
        images=tuple(image for image in images if isinstance(image, Path)),
    )


def _says_something(content: Any) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    texts = content if isinstance(content, Sequence) else ()
    return bool(texts) and all(
        isinstance(item, Mapping)
        and item.get("type") == "text"
        and isinstance(item.get("text"), str)
        for item in texts
    )


def _with_paths(message: Message, folder: Path) -> Message:
    """A message whose images are paths of files that are there."""
    content = message["content"]
    if isinstance(content, str):
        return message
    return {**message, "content": [_item_with_path(item, folder) for item in content]}


def _item_with_path(item: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    if item["type"] != "image":
        return item
    if not isinstance(item["image"], str):
        raise PromptError("an image is not a path")
    return {**item, "image": existing_image(folder, item["image"])}
