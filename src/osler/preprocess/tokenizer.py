"""Text to a MedGemma's token ids and back, by the checkpoint's own files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from osler.errors import CheckpointError, PromptError
from osler.preprocess.json_file import read_json_object_if_there

START_OF_TURN = "<start_of_turn>"
END_OF_TURN = "<end_of_turn>"


class Backend(Protocol):
    """Pieces and merges: the `tokenizers` library's, or the native engine's."""

    @property
    def size(self) -> int:
        """Number of ids."""

    @property
    def special(self) -> frozenset[str]:
        """Pieces that `decode` leaves out where it is told to."""

    def encode(self, text: str) -> list[int]:
        """Encode text; control pieces in it become the tokens that they name."""

    def spell(self, text: str) -> list[int]:
        """Encode text letter for letter."""

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Decode; ids of no piece give no text."""

    def id_of(self, piece: str) -> int | None:
        """The id of a piece, if there is such."""

    def to_json(self) -> str:
        """All of it in the form of a `tokenizer.json`."""


class Tokenizer:
    """A Gemma tokenizer: byte-pair encoding that spells what it does not know in bytes.

    Attributes:
        bos: the piece that a prompt begins with.
        start_of_image: stands before an image's soft tokens.
        image_soft: stands for one soft token of an image.
        end_of_image: stands behind them.
        control_pieces: pieces that mean something other than their letters. `encode` knows them in
            its text, so text of unknown origin is split at them and the pieces go to `spell`.
    """

    def __init__(self, backend: Backend, names: Mapping[str, Any], where: str) -> None:
        """Most callers want `from_folder`.

        Args:
            backend: the pieces and merges.
            names: `tokenizer_config.json`, which may rename the pieces that are attributes here.
            where: what to call this tokenizer in messages.

        Raises:
            CheckpointError: one of these pieces, or of those that a chat needs, is missing.
        """
        self._backend = backend
        self._where = where
        self.bos = _piece(names, "bos_token", "<bos>")
        self.start_of_image = _piece(names, "boi_token", "<start_of_image>")
        self.image_soft = _piece(names, "image_token", "<image_soft_token>")
        self.end_of_image = _piece(names, "eoi_token", "<end_of_image>")
        self.control_pieces = backend.special | {START_OF_TURN, END_OF_TURN, self.bos}
        self._control_ids = {self.id_of(piece) for piece in self.control_pieces}

    @classmethod
    def from_folder(cls, folder: str | Path, backend: Backend | None = None) -> "Tokenizer":
        """Read `tokenizer.json`, or `tokenizer.model` where there is none.

        Args:
            folder: a checkpoint's.
            backend: what was made of one of these files already, to be taken instead.

        Raises:
            CheckpointError: neither is there, or what is there is broken.
        """
        path = Path(folder) / "tokenizer.json"
        names = read_json_object_if_there(path.with_name("tokenizer_config.json"))
        if not path.exists():
            path = path.with_name("tokenizer.model")
        if backend is None:
            # Imported here: a packed model brings its own.
            from osler.preprocess.tokenizer_files import read_backend

            backend = read_backend(path, names)
        return cls(backend, names, str(path))

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._backend.size

    def encode(self, text: str, *, add_bos: bool = False) -> list[int]:
        """Encode text; control pieces in it become the tokens that they name.

        Args:
            text: of trusted origin, or without control pieces.
            add_bos: begin with `<bos>`.

        Raises:
            PromptError: text that is not Unicode.
        """
        ids = self._backend.encode(check_unicode(text))
        return [self.id_of(self.bos), *ids] if add_bos else ids

    def spell(self, text: str) -> list[int]:
        """Encode text letter for letter: control pieces in it stay letters.

        Raises:
            PromptError: text that is not Unicode, or that this vocabulary cannot spell.
        """
        ids = self._backend.spell(check_unicode(text))
        if self._control_ids.intersection(ids):
            raise PromptError("a text holds a control token that cannot be written in letters")
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Decode; bytes that are no UTF-8 become U+FFFD.

        Args:
            ids: of this vocabulary; others give no text.
            skip_special: leave out control tokens. The thought markers are not among them.
        """
        return self._backend.decode(ids, skip_special=skip_special)

    def id_of(self, piece: str) -> int:
        """The id of a piece.

        Raises:
            CheckpointError: there is no such piece.
        """
        token_id = self.id_if_there(piece)
        if token_id is None:
            raise CheckpointError(f"{self._where}: no piece {piece!r}")
        return token_id

    def id_if_there(self, piece: str) -> int | None:
        """The id of a piece; None where there is no such piece."""
        return self._backend.id_of(piece)

    def to_json(self) -> str:
        """All of it in the form of a `tokenizer.json`."""
        return self._backend.to_json()


def check_unicode(text: str) -> str:
    """Give text back if it can be written in UTF-8.

    Raises:
        PromptError: it holds half a surrogate pair, as careless JSON does.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PromptError("a text holds half a surrogate pair, which is no character") from None
    return text


def _piece(names: Mapping[str, Any], name: str, default: str) -> str:
    """A piece's name: a string, or an object with its content, or among the extra ones."""
    extra = names.get("extra_special_tokens")
    value = names.get(name, extra.get(name) if isinstance(extra, dict) else None)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default
