"""From what a user names as data to examples."""

import os
from collections.abc import Sequence
from pathlib import Path

from osler.errors import UnreadableFileError
from osler.training.finetune.chats import read_chats
from osler.training.finetune.examples import Examples
from osler.training.finetune.tables import read_table

_TABLES = (".csv", ".tsv")
_CHATS = (".jsonl",)


def read_examples(
    data: str | os.PathLike[str],
    *,
    question: str | None = None,
    labels: Sequence[str] | None = None,
) -> Examples:
    """Read examples.

    Args:
        data: a table (.csv, .tsv; see `tables`), conversations (.jsonl; see `chats`), or a folder
            that holds one such file beside its images.
        question: asked about every image with a label; None for one that names all labels.
        labels: those there may be; None for any.

    Raises:
        UnreadableFileError: no such file, several to choose from, or rows that are not good.
    """
    path = _file(Path(data))
    if path.suffix.lower() in _CHATS:
        return read_chats(path)
    return read_table(path, question=question, labels=labels)


def _file(data: Path) -> Path:
    if data.is_file():
        if data.suffix.lower() not in (*_TABLES, *_CHATS):
            raise UnreadableFileError(f"{data}: the data are a .csv, .tsv or .jsonl file")
        return data
    if not data.is_dir():
        raise UnreadableFileError(f"{data}: no such file or folder")
    found = sorted(p for p in data.iterdir() if p.suffix.lower() in (*_TABLES, *_CHATS))
    if not found:
        raise UnreadableFileError(f"{data}: no .csv, .tsv or .jsonl file in this folder")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UnreadableFileError(f"{data}: name one of its files: {names}")
    return found[0]
