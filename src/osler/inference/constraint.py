"""Keeps an answer to a JSON schema or a regular expression.

Shapes: V vocabulary.
"""

import json
import threading

import llguidance
import numpy as np
from numpy.typing import NDArray

from osler.errors import PromptError
from osler.inference.sampling import SamplingParams
from osler.inference.thought import CLOSING, OPENING
from osler.models.config import MedGemmaConfig
from osler.preprocess.tokenizer import Tokenizer

# JSON allows any amount between its parts, and a model that is unsure can go on with it for ever.
MOST_WHITESPACE = 32


class Grammars:
    """Makes constraints for one model; what they share is built when first needed."""

    def __init__(self, tokenizer: Tokenizer, config: MedGemmaConfig) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._vocabulary: _Vocabulary | None = None
        self._lock = threading.Lock()

    def constraint(self, params: SamplingParams) -> "Constraint | None":
        """What keeps an answer to `params.schema` or `params.regex`; None without either.

        Raises:
            PromptError: the schema or expression is malformed or beyond what is supported.
        """
        if params.regex is not None:
            grammar = llguidance.LLMatcher.grammar_from_regex(params.regex)
        elif params.schema is not None:
            grammar = _schema_grammar(params.schema)
        else:
            return None
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = _Vocabulary(self._tokenizer, self._config)
        matcher = llguidance.LLMatcher(self._vocabulary.tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise PromptError(f"the {_kind(params)} cannot be used: {_reason(matcher)}")
        return Constraint(matcher, self._vocabulary, _kind(params))


class Constraint:
    """What one answer may go on with."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: "_Vocabulary", kind: str) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._kind = kind
        self._whitespace = 0

    @property
    def complete(self) -> bool:
        """Nothing but the end can follow."""
        return self._matcher.is_stopped()

    def allowed(self, *, may_think: bool) -> NDArray[np.bool_]:
        """The tokens that may come next.

        Args:
            may_think: the answer has not begun, so that a thought may come before it.

        Returns:
            (V,).

        Raises:
            PromptError: the grammar became too complex.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocabulary.size].astype(bool)
        if self._matcher.is_error():
            raise PromptError(f"the {self._kind} cannot be used: {_reason(self._matcher)}")
        marks, blank = self._vocabulary.thought_marks, self._vocabulary.blank
        allowed[list(marks)] = False  # as text in a string they would part the answer
        if self._whitespace >= MOST_WHITESPACE and (allowed & ~blank).any():
            allowed &= ~blank
        if may_think:
            allowed[list(marks[:1])] = True
        return allowed

    def push(self, token_id: int) -> None:
        """Take the next token of the answer, one that was allowed."""
        self._matcher.consume_token(token_id)
        text = self._vocabulary.tokenizer.decode_bytes([token_id])
        trailing = len(text) - len(text.rstrip())
        self._whitespace = trailing + (self._whitespace if trailing == len(text) else 0)

    def forced(self) -> list[int]:
        """Tokens that the text must go on with; they may be spelt in others."""
        return self._matcher.compute_ff_tokens()


class _Vocabulary:
    """The tokens as llguidance sees them.

    Attributes:
        tokenizer: their bytes in a tree.
        size: scores that the model gives.
        blank: bool (V,), tokens of whitespace only.
        thought_marks: the tokens that open and close a thought, if there are such.
    """

    def __init__(self, tokenizer: Tokenizer, config: MedGemmaConfig) -> None:
        self.size = config.text_config.vocab_size
        ends = list(config.eos_token_ids)
        try:
            self.tokenizer = llguidance.LLTokenizer(
                tokenizer.to_json(), n_vocab=self.size, eos_token=ends
            )
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise PromptError(f"this tokenizer takes no schema or expression: {reason}") from None
        self.blank = np.zeros(self.size, dtype=bool)
        for token_id in range(min(self.size, tokenizer.vocab_size)):
            self.blank[token_id] = self.tokenizer.decode_bytes([token_id]).isspace()
        ids = (tokenizer.id_if_there(mark) for mark in (OPENING, CLOSING))
        self.thought_marks = tuple(token_id for token_id in ids if token_id is not None)


def _schema_grammar(schema: object) -> str:
    try:
        text = json.dumps(json.loads(schema) if isinstance(schema, str) else schema)
        return llguidance.LLMatcher.grammar_from_json_schema(text)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PromptError(f"the schema is not JSON: {reason}") from None


def _kind(params: SamplingParams) -> str:
    return "schema" if params.regex is None else "regex"


def _reason(matcher: llguidance.LLMatcher) -> str:
    """The first line, as the rest repeats the grammar."""
    return matcher.get_error().strip().splitlines()[0]
