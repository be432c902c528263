"""Text to a MedSigLIP's token ids, by the checkpoint's own sentencepiece model."""

import re
import string
from pathlib import Path

import sentencepiece

from osler.errors import CheckpointError
from osler.preprocess.sentencepiece_file import open_sentencepiece
from osler.preprocess.tokenizer import check_unicode

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SiglipTokenizer:
    """The tokenizer of SigLIP: lower case, no punctuation, always the same length.

    `</s>` ends a text and fills it up; a text that is too long is cut and still ends in it.

    Attributes:
        length: of every sequence.
    """

    def __init__(
        self, model: sentencepiece.SentencePieceProcessor, length: int, where: str
    ) -> None:
        """Most callers want `from_folder`.

        Args:
            model: the pieces.
            length: of every sequence.
            where: what to call this tokenizer in messages.

        Raises:
            CheckpointError: the model has no `</s>`.
        """
        self._model = model
        self.length = length
        self._end: int = model.piece_to_id("</s>")
        if model.id_to_piece(self._end) != "</s>":
            raise CheckpointError(f"{where}: no piece '</s>'")

    @classmethod
    def from_folder(cls, folder: str | Path, length: int = 64) -> "SiglipTokenizer":
        """Read `spiece.model`.

        Raises:
            CheckpointError: it is not there or broken.
        """
        path = Path(folder) / "spiece.model"
        return cls(open_sentencepiece(path), length, str(path))

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        size: int = self._model.get_piece_size()
        return size

    def encode(self, text: str) -> list[int]:
        """Encode a text as exactly as many ids as the encoder has positions.

        Unlike in `transformers`, `</s>` and `<unk>` written in the text are text.

        Raises:
            PromptError: text that is not Unicode.
        """
        ids = self._ids(text)[: self.length - 1]
        return ids + [self._end] * (self.length - len(ids))

    def count(self, text: str) -> int:
        """How many ids a text has with its end; if more than `length`, `encode` cuts it off.

        Raises:
            PromptError: text that is not Unicode.
        """
        return len(self._ids(text)) + 1

    def _ids(self, text: str) -> list[int]:
        # The piece that stands for a space would otherwise pass for one inside a word.
        plain = canonical_text(check_unicode(text).replace("▁", " "))
        ids: list[int] = self._model.encode(plain)
        return ids


def canonical_text(text: str) -> str:
    """Lower case, without ASCII punctuation, single spaces.

    Source: SigLIP (arXiv 2303.15343), text preparation of the released models.

    >>> canonical_text("  Chest X-ray:\\tNORMAL. ")
    'chest xray normal'
    """
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()
