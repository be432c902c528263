"""The texts of the data pack: gzipped JSON lines, some with a split of their own."""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from osler.errors import UnreadableFileError
from osler.ingest.image_pack import Split


def read_text_pack(
    folder: str | os.PathLike[str], name: str, split: Split
) -> Iterator[dict[str, Any]]:
    """Read the rows of one text of the pack that belong to a split.

    Args:
        folder: the data pack, or its `text` folder.
        name: the text, as "medquad".
        split: "train" or "val"; a row that names no split is a training row.

    Yields:
        The row's fields as they are stored.

    Raises:
        UnreadableFileError: a text that is not there, a damaged archive, or a line that is not a
            JSON object.
    """
    texts = Path(folder)
    if (texts / "text").is_dir():
        texts = texts / "text"
    path = texts / f"{name}.jsonl.gz"
    if not path.is_file():
        raise UnreadableFileError(f"{path}: no such text")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                row = _parse(path, number, line)
                if row.get("split", "train") == split:
                    yield row
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{path}: not a readable gzip file of UTF-8 text") from error


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UnreadableFileError(f"{path}: line {number} is not JSON") from error
    if not isinstance(row, dict):
        raise UnreadableFileError(f"{path}: line {number} is not a JSON object")
    return row
