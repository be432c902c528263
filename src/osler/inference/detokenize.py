"""From token ids to text, piece by piece, without ever splitting a character."""

from osler.preprocess.tokenizer import Tokenizer


class Detokenizer:
    """Gives out the text of each token as soon as it is settled.

    A character outside the vocabulary is spelt in byte tokens. Such a run is held until a token of
    another kind follows: whether it is valid UTF-8, and so what the tokenizer makes of it, is not
    known before. All that is given out, joined, is `Tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_ids = {tokenizer.id_of(f"<0x{byte:02X}>") for byte in range(256)}
        self._held: list[int] = []

    def push(self, token_id: int) -> str:
        """Take one token and give out the text that is now settled."""
        self._held.append(token_id)
        # A special token is no text, and a run of bytes goes on behind it.
        if token_id in self._byte_ids or not self._tokenizer.decode([token_id]):
            return ""
        return self.finish()

    def finish(self) -> str:
        """Give out what was held; a character cut off in its middle becomes U+FFFD."""
        held, self._held = self._held, []
        return self._tokenizer.decode(held)
