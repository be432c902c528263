"""The activation of both towers and the decoder."""

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU.

    While a block is being compiled for training it is written as the sigmoid that it equals: the
    compiled tanh takes several times as long, a fifth of a small model's step (bench/LOG.md).

    Source: GELU (arXiv 1606.08415), section 2: 0.5 x (1 + tanh(u)) = x sigmoid(2 u) with
    u = sqrt(2 / pi) (x + 0.044715 x^3).
    """
    if torch.compiler.is_compiling():
        twice_u = x * (1.5957691216057308 + 0.07135481282553 * x * x)
        return x * torch.sigmoid(twice_u)
    return F.gelu(x, approximate="tanh")
