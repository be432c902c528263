"""Muon: steps of matrices made orthogonal, AdamW for everything else.

The momentum of a matrix is a sum of few directions, each as strong as its gradients were. Muon
makes them all equally strong before the step, so that rare directions are learnt as well.

Shapes: S matrices of one shape, A its rows, B its columns.

Source: Muon (kellerjordan.github.io/posts/muon); the scale that makes one learning rate fit both
rules, Moonlight (arXiv 2502.16982), section 2.2.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

MOMENTUM = 0.95
# Of the quintic that pushes singular values to one; it leaves them between 0.7 and 1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# Root mean square of an AdamW step's entries, in units of its learning rate.
_ADAMW_RMS = 0.2
_EPSILON = 1e-7


def orthogonalised(matrices_SAB: Tensor) -> Tensor:
    """Each matrix with its singular values brought to about one, by Newton-Schulz iterations.

    Args:
        matrices_SAB: float32 or float64, of any size.

    Returns:
        (S, A, B), the singular vectors as they were, the values 0.7 to 1.2 (0 where they were 0).
    """
    a, b, c = _QUINTIC
    tall = matrices_SAB.shape[1] > matrices_SAB.shape[2]
    x = matrices_SAB.mT if tall else matrices_SAB
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_EPSILON)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """Muon for some matrices, AdamW for the other parameters, at one learning rate.

    Args:
        matrices: whole, not sharded; matrices of one shape are stepped together.
        others: groups of parameters for AdamW, as torch's optimisers take them.
        lr: of both rules: a step of a matrix is scaled to the size that AdamW's has.
        weight_decay: of the matrices.
        betas: of AdamW.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: list[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        groups = [
            {"params": list(matrices), "weight_decay": weight_decay, "orthogonal": True},
            *({**group, "orthogonal": False} for group in others),
        ]
        defaults = {"lr": lr, "weight_decay": 0.0, "betas": betas}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step with the gradients that are there.

        Raises:
            ValueError: there is a closure: gradients are computed before.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                self._step_matrices(parameters, group["lr"], group["weight_decay"])
            else:
                self._step_others(parameters, group)

    def _step_matrices(self, matrices: list[Tensor], lr: float, weight_decay: float) -> None:
        alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            alike[matrix.shape].append(matrix)
        for (rows, columns), stack in alike.items():
            directions = []
            for matrix in stack:
                state, gradient = self.state[matrix], matrix.grad
                assert gradient is not None
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(gradient, 1.0 - MOMENTUM)
                directions.append(gradient.lerp(state["momentum"], MOMENTUM))
            changes = orthogonalised(torch.stack(directions))
            scale = _ADAMW_RMS * max(rows, columns) ** 0.5
            for matrix, change in zip(stack, changes, strict=True):
                matrix.mul_(1.0 - lr * weight_decay).sub_(change, alpha=lr * scale)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )
