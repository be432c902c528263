"""One small tokenizer and one thread for all tests of this room."""

from collections.abc import Iterator

import pytest
import torch

from osler.preprocess.tokenizer import Tokenizer
from osler.testing.dummy import dummy_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return dummy_tokenizer()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
