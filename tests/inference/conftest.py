"""One small tokenizer for all tests of this room."""

import pytest

from osler.preprocess.tokenizer import Tokenizer
from osler.testing.dummy import dummy_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return dummy_tokenizer()
