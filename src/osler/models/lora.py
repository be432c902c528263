"""Low-rank adapters beside the matrices of a model that rests.

Shapes: I inputs of a matrix, O its outputs.

Source: LoRA (arXiv 2106.09685), section 4.1. Which dtype each step has follows PEFT, so that both
compute the same.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from osler.errors import PromptError
from osler.models.nf4 import Linear4bit, replace_module

ALL_LINEAR = "all-linear"

Matrix = nn.Linear | Linear4bit


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """How adapters are built.

    Attributes:
        rank: of the products; the fewer, the less can be learnt.
        alpha: the products are multiplied by `alpha / rank`.
        dropout: share of the inputs that a training step leaves out of the products.
        rank_stabilised: `alpha / sqrt(rank)` instead, as PEFT's `use_rslora`.
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    rank_stabilised: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise PromptError(f"rank is {self.rank}; it must be 1 or more")
        if not 0 <= self.dropout < 1:
            raise PromptError(f"dropout is {self.dropout}; it must be 0 or more, and below 1")

    @property
    def scale(self) -> float:
        """What the products are multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class LoraLinear(nn.Module):
    """A matrix that rests, plus the product of two small ones that learn.

    The product begins at zero. Its factors are float32 whatever the matrix is, or small steps
    would be lost.
    """

    def __init__(self, base: Matrix, config: LoraConfig) -> None:
        super().__init__()
        device = next(iter([*base.parameters(), *base.buffers()])).device
        self.base = base.requires_grad_(False)
        self.scale = config.scale
        self.dropout = nn.Dropout(config.dropout)
        self.lora_A = nn.Linear(base.in_features, config.rank, bias=False, device=device)
        self.lora_B = nn.Linear(config.rank, base.out_features, bias=False, device=device)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        rested: Tensor = self.base(x)
        wide = self.dropout(x.to(self.lora_A.weight.dtype))
        learnt: Tensor = self.lora_B(self.lora_A(wide)) * self.scale
        return (rested + learnt).to(rested.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One matrix that does the same, in the dtype of the resting one, whose memory it takes."""
        linear = self.base.linear() if isinstance(self.base, Linear4bit) else self.base
        learnt_OI = self.lora_B.weight @ self.lora_A.weight * self.scale
        # Added in float32 and rounded once.
        linear.weight.copy_(linear.weight.float() + learnt_OI)
        return linear


def matrices(model: nn.Module) -> dict[str, Matrix]:
    """Every linear layer of a model by its name: what PEFT means by "all-linear"."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Matrix)}


def target_names(model: nn.Module, targets: str | Sequence[str] = ALL_LINEAR) -> list[str]:
    """The linear layers that some words mean, as PEFT takes them.

    Args:
        model: without adapters.
        targets: `ALL_LINEAR`, or last names: "q_proj" means every layer that is called so, in the
            decoder and in the vision tower.

    Raises:
        PromptError: a word that means no layer of the model.
    """
    names = list(matrices(model))
    if targets == ALL_LINEAR:
        return names
    for target in targets:
        if not any(_is_meant(name, target) for name in names):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
            raise PromptError(f"target module {target!r} is not in the model, which has {known}")
    return [name for name in names if any(_is_meant(name, target) for target in targets)]


def add_lora(model: nn.Module, config: LoraConfig, names: Collection[str]) -> None:
    """Let a model rest, and put an adapter beside some of its linear layers.

    Args:
        model: changed in place; all that learns in it afterwards is the adapters.
        config: how they are built.
        names: of the layers.
    """
    model.requires_grad_(False)
    layers = matrices(model)
    for name in names:
        replace_module(model, name, LoraLinear(layers[name], config))


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The adapters of a model, each with the name of its layer."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def merge_lora(model: nn.Module) -> None:
    """Make the model an ordinary one again, which has learnt what its adapters have."""
    for name, layer in list(lora_layers(model)):
        replace_module(model, name, layer.merged())
    for name, matrix in matrices(model).items():
        if isinstance(matrix, Linear4bit):
            replace_module(model, name, matrix.linear())


def _is_meant(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
