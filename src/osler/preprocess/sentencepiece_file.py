"""Opens the sentencepiece models of checkpoint folders."""

from pathlib import Path

import sentencepiece

from osler.errors import CheckpointError


def open_sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Open a sentencepiece model of any kind.

    Raises:
        CheckpointError: it is not there or broken.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        if not data:  # it would give a model without pieces
            raise RuntimeError
        return sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError:
        raise CheckpointError(f"{path}: not a sentencepiece model, or truncated") from None
