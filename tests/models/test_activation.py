"""The two ways of writing one activation."""

from unittest.mock import patch

import torch

from osler.models.activation import gelu_tanh


def test_what_is_compiled_equals_what_is_not() -> None:
    x = torch.linspace(-12, 12, 4001)
    plain = gelu_tanh(x)
    with patch("torch.compiler.is_compiling", return_value=True):
        compiled = gelu_tanh(x)
    assert torch.allclose(compiled, plain, rtol=1e-5, atol=1e-6)
    assert not torch.equal(compiled, plain), "the compiled form was not taken"
