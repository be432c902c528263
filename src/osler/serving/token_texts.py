"""The tokens of an answer and their probabilities, in the two forms that OpenAI's protocol has."""

from typing import Any

from osler.inference.continuation import Generation
from osler.preprocess.tokenizer import Tokenizer


class TokenTexts:
    """Writes tokens as clients read them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def chat(self, generation: Generation) -> dict[str, Any] | None:
        """A chat choice's `logprobs`."""
        return None

    def completion(self, generation: Generation) -> dict[str, Any] | None:
        """A completion choice's `logprobs`."""
        return None
