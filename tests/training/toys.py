"""A tiny regression to try the loop on: every batch follows from its number."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osler.training.distributed import current_ranks
from osler.training.loop import Size

ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Rows:
    x_BD: Tensor
    y_BD: Tensor
    real_B: Tensor


class NumberedBatches:
    """Rows of a batch by its number, of which each rank takes its share."""

    def __init__(self) -> None:
        self.number = 0

    def __next__(self) -> Rows:
        generator = torch.Generator().manual_seed(self.number)
        self.number += 1
        x = torch.randn(ROWS, 6, generator=generator)
        real = torch.rand(ROWS, generator=generator) < 0.7
        mine = current_ranks().share(ROWS)
        return Rows(x_BD=x[mine], y_BD=x[mine].cumsum(dim=1), real_B=real[mine])

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


class Stack(nn.Module):
    """Two blocks between two maps, with a parameter of its own that a loss uses directly."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Dropout(dropout)) for _ in range(2)
        )
        self.last = nn.Linear(16, 6)
        self.scale = nn.Parameter(torch.ones(1))
        self.resting = nn.Linear(6, 6).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x + 0.1 * self.resting(x))
        for layer in self.layers:
            x = x + layer(x)
        out: Tensor = self.last(x)
        return out


class Toy:
    """Cumulative sums by least squares, over the rows that are real."""

    unit = "rows"

    def __init__(self, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        self.model = Stack(dropout)
        self.batches = NumberedBatches()

    def size(self, batch: Rows) -> Size:
        return Size(weight=int(batch.real_B.sum()), units=len(batch.x_BD))

    def loss(self, batch: Rows) -> tuple[Tensor, dict[str, float]]:
        predicted = self.model(batch.x_BD) * self.model.scale
        real = batch.real_B[:, None].float()
        error = F.mse_loss(predicted * real, batch.y_BD * real, reduction="sum")
        # A share may have no real row, and then weighs nothing.
        loss = error / batch.real_B.sum().clamp(min=1)
        return loss, {"root": float(loss.detach().sqrt())}

    def evaluate(self) -> dict[str, float]:
        x = torch.eye(6)
        return {"error": float(F.mse_loss(self.model(x) * self.model.scale, x.cumsum(dim=1)))}
