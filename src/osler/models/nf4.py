"""Matrices that rest in 4 bits: an eighth of their float32, and a little more for the scales.

A weight becomes the nearest of 16 levels, times the largest magnitude of its block of 64. The
levels are the normal distribution's quantiles, as weights are about normal, with one at zero.

Only the codes are kept: forward and backward each make the float matrix anew for as long as they
multiply by it, so no more than one of them is in memory at a time.

Shapes: ... any batch, I inputs, O outputs, N blocks, K weights of a block.

Source: QLoRA (arXiv 2305.14314), section 3 and appendix E, with the scales in bfloat16 instead of
quantised in turn: 4.25 bits a weight.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 64

# How far into the tail the outermost levels lie: the mean of 1 - 1/30 and 1 - 1/32, as 16 levels
# are 15 steps, and as both signs have 16 with the zero.
_TAIL = 0.5 * ((1 - 1 / 30) + (1 - 1 / 32))


def levels() -> Tensor:
    """The 16 values of a code, ascending, float32, -1 to 1."""
    above = torch.special.ndtri(torch.linspace(0.5, _TAIL, 9, dtype=torch.float64))
    below = -torch.special.ndtri(torch.linspace(0.5, _TAIL, 8, dtype=torch.float64))
    both = torch.cat([below.flip(0)[:-1], above])
    return (both / both.abs().max()).float()


class Linear4bit(nn.Module):
    """A linear layer whose matrix is held in 4 bits and does not learn."""

    codes: Tensor
    scale_N: Tensor
    pairs: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        """Round a layer's matrix; the layer itself is left alone."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = linear.weight.dtype
        table = levels().to(linear.weight.device)
        codes, scale_N = _round(linear.weight.detach(), table)
        self.register_buffer("codes", codes)
        self.register_buffer("scale_N", scale_N)
        # What each byte stands for, which is quicker than taking its two codes apart.
        self.register_buffer("pairs", torch.cartesian_prod(table, table), persistent=False)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """What the codes stand for, (O, I), made anew each time."""
        value_NK = self.pairs[self.codes.int()].view(-1, BLOCK)
        value_NK = value_NK * self.scale_N[:, None].float()
        size = self.out_features * self.in_features
        return value_NK.flatten()[:size].view(self.out_features, -1).to(self.dtype)

    def linear(self) -> nn.Linear:
        """An ordinary layer that does the same."""
        linear: nn.Linear = nn.utils.skip_init(
            nn.Linear,
            self.in_features,
            self.out_features,
            bias=self.bias is not None,
            dtype=self.dtype,
            device=self.codes.device,
        )
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear

    def forward(self, x: Tensor) -> Tensor:
        apply: Any = _Multiply.apply  # without types
        out: Tensor = apply(x, self)
        return out


def hold_in_4_bits(model: nn.Module) -> None:
    """Put a `Linear4bit` in the place of every linear layer, one after the other.

    Args:
        model: changed in place; embeddings, norms and biases stay as they are.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            replace_module(model, name, Linear4bit(module))


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another of the same name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


class _Multiply(torch.autograd.Function):
    """x W^T + b, with W made twice rather than kept from forward to backward."""

    @staticmethod
    def forward(context: Any, x: Tensor, layer: Linear4bit) -> Tensor:
        context.layer = layer
        context.dtype = x.dtype
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return F.linear(x, layer.weight.to(x.dtype), bias)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        weight_OI = context.layer.weight.to(gradient.dtype)
        return (gradient @ weight_OI).to(context.dtype), None


def _round(weight_OI: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Codes, two to a byte, the first in the upper half; and a scale a block."""
    flat = weight_OI.flatten().float()
    value_NK = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale_N = value_NK.abs().amax(dim=1).bfloat16()
    unit_NK = value_NK / scale_N.float().clamp(min=1e-30)[:, None]
    middles = (table[1:] + table[:-1]) / 2
    code = torch.bucketize(unit_NK.flatten(), middles).to(torch.uint8)
    return code[0::2] << 4 | code[1::2], scale_N
