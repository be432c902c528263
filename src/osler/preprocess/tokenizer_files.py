"""The tokenizer files of a checkpoint, read by the `tokenizers` library."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from osler.errors import CheckpointError
from osler.preprocess.json_file import read_json_object
from osler.preprocess.sentencepiece_bpe import read_sentencepiece_bpe


class LibraryBackend:
    """A tokenizer of the library; see `tokenizer.Backend`."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        self.special = frozenset(token.content for token in added if token.special)

    @property
    def size(self) -> int:
        """See `Backend.size`."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """See `Backend.encode`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def spell(self, text: str) -> list[int]:
        """See `Backend.spell`."""
        normalizer = self._tokenizer.normalizer
        normal = text if normalizer is None else normalizer.normalize_str(text)
        return [token.id for token in self._tokenizer.model.tokenize(normal)]

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """See `Backend.decode`."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def id_of(self, piece: str) -> int | None:
        """See `Backend.id_of`."""
        return self._tokenizer.token_to_id(piece)

    def to_json(self) -> str:
        """See `Backend.to_json`."""
        return self._tokenizer.to_str()


def read_backend(path: Path, names: Mapping[str, Any]) -> LibraryBackend:
    """Read a tokenizer's file.

    Args:
        path: `tokenizer.json` or `tokenizer.model`.
        names: the `tokenizer_config.json` beside it.

    Raises:
        CheckpointError: it is not there or broken.
    """
    if not path.exists():
        raise CheckpointError(f"{path.parent}: no tokenizer.json or tokenizer.model in this folder")
    if path.suffix == ".json":
        return LibraryBackend(_read_tokenizer_json(path))
    return LibraryBackend(read_sentencepiece_bpe(path, names))


def _read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises this class itself, and no other
        read_json_object(path)  # which says better what is wrong with a file that is no JSON
        reason = str(error).splitlines()[0] if str(error) else "broken"
        raise CheckpointError(f"{path}: not a tokenizer ({reason})") from error
