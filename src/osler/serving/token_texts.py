"""The tokens of an answer and their probabilities, in the two forms that OpenAI's protocol has."""

from collections.abc import Sequence
from typing import Any

from osler.inference.sampling import TokenLogprob
from osler.preprocess.tokenizer import Tokenizer

# Below every logarithm of a float64's probability; JSON has no infinity.
_LEAST_LOGPROB = -9999.0


class TokenTexts:
    """Writes tokens as clients read them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # A part of a character: no text of its own, but a byte.
        self._bytes = {tokenizer.id_of(f"<0x{byte:02X}>"): byte for byte in range(256)}

    def chat(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        """As a chat choice's `logprobs`."""
        content = [
            self._entry(one.token_id, one.logprob)
            | {"top_logprobs": [self._entry(*best) for best in one.top]}
            for one in logprobs
        ]
        return {"content": content, "refusal": None}

    def completion(self, logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        """As a completion choice's `logprobs`; `offset` is that of the first token's text."""
        texts = [self._text(one.token_id) for one in logprobs]
        return {
            "tokens": texts,
            "token_logprobs": [_finite(one.logprob) for one in logprobs],
            "top_logprobs": [
                {self._text(token_id): _finite(logprob) for token_id, logprob in one.top}
                for one in logprobs
            ],
            "text_offset": [offset + len("".join(texts[:i])) for i in range(len(texts))],
        }

    def _entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self._text(token_id)
        byte = self._bytes.get(token_id)
        return {
            "token": text,
            "logprob": _finite(logprob),
            "bytes": list(text.encode()) if byte is None else [byte],
        }

    def _text(self, token_id: int) -> str:
        return self._tokenizer.decode([token_id], skip_special=False)


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)
