"""What a user's data become: conversations to learn from, each with the line that it came from."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from osler.errors import UnreadableFileError
from osler.preprocess.chat import Message

_LINES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row.

    Attributes:
        line: of the file, from 1.
        messages: a conversation, the assistant's answer last; images are paths that exist.
        images: the same paths, in order.
        label: what the image is, where the data are images with labels.
    """

    line: int
    messages: tuple[Message, ...] = field(repr=False)
    images: tuple[Path, ...]
    label: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The rows of one file.

    Attributes:
        path: of the file.
        rows: all of them, in order.
        labels: what there is to tell apart, in the order that questions name it; empty where the
            answers are free.
    """

    path: Path
    rows: tuple[Example, ...]
    labels: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256, in hex, of the file and of all its images in the order of the rows."""
        whole = hashlib.sha256()
        for path in (self.path, *(image for row in self.rows for image in row.images)):
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()


class BadRows:
    """Collects what is wrong with the rows of a file, so that one run tells all of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reasons: dict[int, str] = {}

    def add(self, line: int, reason: object) -> None:
        """Note what is wrong with a line; the first reason counts."""
        self._reasons.setdefault(line, str(reason))

    def refuse_if_any(self) -> None:
        """Raise unless every row was good.

        Raises:
            UnreadableFileError: names the file, the first bad line with its reason, and the lines
                of the others.
        """
        if not self._reasons:
            return
        (line, reason), *others = sorted(self._reasons.items())
        more = _more([other for other, _ in others])
        raise UnreadableFileError(f"{self._path}, line {line}: {reason}{more}")


def refuse_file(path: Path, reason: str) -> NoReturn:
    """Say what is wrong with a whole file."""
    raise UnreadableFileError(f"{path}: {reason}")


def existing_image(folder: Path, name: str) -> Path:
    """The image that a row names, by its place in the folder of the file or from the root.

    Raises:
        UnreadableFileError: there is no such file.
    """
    path = folder / name
    if not path.is_file():
        raise UnreadableFileError(f"no image {name} in {folder}")
    return path


def _more(lines: Iterable[int]) -> str:
    numbers = list(map(str, lines))
    if not numbers:
        return ""
    shown = ", ".join(numbers[:_LINES_SHOWN]) + (", ..." if len(numbers) > _LINES_SHOWN else "")
    noun = "row is" if len(numbers) == 1 else "rows are"
    return f" ({len(numbers)} more {noun} bad: {shown})"
