"""A running average of the weights, which often evaluates better than the weights themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of the parameters that train.

    Args:
        model: what is averaged; sharded parameters keep sharded averages.
        decay: the share of the old average that a step keeps, 0 to 1. The first steps keep less,
            (1 + n) / (10 + n), so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._decay = decay
        self.values = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 1."""
        kept = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(parameter.detach(), 1.0 - kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages where the weights are, for a while."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and averages."""
        for name, parameter in self._parameters.items():
            weights: Tensor = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(weights)
