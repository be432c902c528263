"""Weights to int4, each scale chosen by the error that it leaves.

int4 is row_scale * multiplier * value, with a multiplier of 1 to 16 for each group of 32 columns
and values of -8 to 7. A row's scale is the one under which its groups, each with its own best
multiplier, leave the least error. Rounding then goes through the columns in order and moves the
error of each into the columns that are still to come, as far as the inputs of the two move
together. That needs the second moments of the inputs, which `calibration.py` collects; without
them all inputs count the same, and rounding is to the nearest.

Moments are kept within units of 256 columns. That is most of the gain at a small part of the cost:
units are independent, so they are rounded side by side.

Shapes: R rows, C columns, U units, I columns of a unit, G groups, K columns of a group.

Source: the rounding is GPTQ (arXiv 2210.17323), its order of columns the natural one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

UNIT = 256
GROUP = 32

_MULTIPLIERS = 16
# Group scales tried, relative to the one under which the largest value is just not cut off.
_RELATIVE = torch.logspace(-0.24, 0.06, 12, dtype=torch.float64).tolist()
# Row scales tried, relative to the one that gives the widest group a multiplier of 16.
_ROW_SCALES = torch.logspace(-0.35, 0.06, 28, dtype=torch.float64).tolist()
_MULTIPLIERS_TRIED = 5
# Of the mean moment, added to all: the text that they were measured on is short.
_DAMPING = 0.3
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Int4:
    """Weights as row_scale * multiplier * value.

    Attributes:
        value_RC: int8, -8 to 7; C is padded to whole units.
        multiplier_RG: uint8, 1 to 16.
        row_scale_R: float32.
    """

    value_RC: Tensor
    multiplier_RG: Tensor
    row_scale_R: Tensor

    def weight_RC(self) -> Tensor:
        """What they stand for, float32."""
        step_RC = self.multiplier_RG.float().repeat_interleave(GROUP, dim=1)
        return self.value_RC * step_RC * self.row_scale_R[:, None]


class Rounding:
    """How the inputs of one matrix move together, prepared for rounding to int4."""

    def __init__(self, moment_UII: Tensor) -> None:
        """Invert the moments.

        Args:
            moment_UII: mean of the products of every two inputs of a unit, float (U, 256, 256).
        """
        damped = moment_UII.double()
        mean_U = damped.diagonal(dim1=1, dim2=2).mean(dim=1)
        floor_U = _DAMPING * mean_U.clamp(min=max(float(mean_U.max()) * 1e-6, _TINY))
        damped = damped + torch.eye(UNIT, dtype=torch.float64) * floor_U[:, None, None]
        self.importance_C = damped.diagonal(dim1=1, dim2=2).flatten().float()
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        # Row i of the factor: what an error of 1 in column i asks of the columns after it.
        self.factor_UII = torch.linalg.cholesky(inverse, upper=True).float()

    @classmethod
    def plain(cls, cols: int) -> "Rounding":
        """Inputs that all count the same and do not move together."""
        return cls(torch.eye(UNIT).expand(-(-cols // UNIT), UNIT, UNIT))


def quantize_int4(weight_RC: Tensor, rounding: Rounding) -> Int4:
    """Choose the scales of some rows, and round them.

    Args:
        weight_RC: float32, any number of rows and columns.
        rounding: of the matrix.
    """
    rows, cols = weight_RC.shape
    padded = torch.nn.functional.pad(weight_RC, (0, -cols % UNIT))
    # Values reach to -8 but only to 7: the side that reaches further gets the longer end.
    sign_R = torch.where(_reach(padded) > 0, -1.0, 1.0)
    # Columns first, so that each step works on memory that lies together.
    x_UIR = (padded * sign_R[:, None]).T.reshape(-1, UNIT, rows).contiguous()
    x_GKR = x_UIR.view(-1, GROUP, rows)
    row_scale_R = _row_scale(x_GKR, rounding.importance_C.view(-1, GROUP, 1))
    rounded = _Pass(x_UIR, row_scale_R, rounding.factor_UII)
    return Int4(
        value_RC=rounded.value_UIR.flatten(0, 1).T.contiguous(),
        multiplier_RG=rounded.multiplier_UGR.flatten(0, 1).T.contiguous(),
        row_scale_R=row_scale_R * sign_R,
    )


def round_q4_0(weight_RC: Tensor) -> Tensor:
    """What GGUF's Q4_0 makes of weights: the largest of each 32 becomes -8, the scale is fp16.

    Args:
        weight_RC: float32, columns a multiple of 32.

    Source: the format that llama.cpp writes; the measure that ours is compared with.
    """
    x = weight_RC.reshape(-1, GROUP)
    largest = x.gather(1, x.abs().argmax(dim=1, keepdim=True))
    scale = largest / -8
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    value = (x * inverse + 8.5).floor().clamp_(0, 15) - 8
    rounded: Tensor = (value * scale.half().float()).view_as(weight_RC)
    return rounded


def _reach(weight_RC: Tensor) -> Tensor:
    """Above 0 where the groups of a row reach further to the positive side, taken together."""
    x_RGK = weight_RC.unflatten(1, (-1, GROUP))
    reach_R: Tensor = (x_RGK.amax(dim=2) + x_RGK.amin(dim=2)).sum(dim=1)
    return reach_R


def _round_error(x: Tensor, step: Tensor) -> Tensor:
    """Squared error of rounding each weight to a multiple of a step."""
    error: Tensor = (x * step.reciprocal()).round_().clamp_(-8, 7).mul_(step).sub_(x).square_()
    return error


def _row_scale(x_GKR: Tensor, importance_GK1: Tensor) -> Tensor:
    """The row scale of least error, each group having the multiplier that suits it best.

    The error of a group is tabulated over its own scale, which asks for the weights once an entry;
    trying a row scale then only looks up what its multipliers cost.
    """
    full_GR = x_GKR.abs().amax(dim=1).clamp_(min=_TINY) / 8
    error_TGR = torch.stack(
        [
            _round_error(x_GKR, (full_GR * relative)[:, None]).mul_(importance_GK1).sum(dim=1)
            for relative in _RELATIVE
        ]
    )
    wanted_GR = full_GR * torch.tensor(_RELATIVE)[error_TGR.argmin(dim=0)]
    widest_R = wanted_GR.amax(dim=0) / _MULTIPLIERS
    best_R = torch.full_like(widest_R, torch.inf)
    scale_R: Tensor = widest_R
    for factor in _ROW_SCALES:
        tried_R = widest_R * factor
        exact_GR = wanted_GR / tried_R
        error_R = torch.minimum(
            _looked_up(error_TGR, exact_GR.floor().clamp_(1, _MULTIPLIERS) * tried_R / full_GR),
            _looked_up(error_TGR, exact_GR.ceil_().clamp_(1, _MULTIPLIERS) * tried_R / full_GR),
        ).sum(dim=0)
        scale_R = torch.where(error_R < best_R, tried_R, scale_R)
        best_R = torch.minimum(best_R, error_R)
    return _fitted(x_GKR, scale_R, (wanted_GR / scale_R).round_(), importance_GK1)


def _fitted(
    x_GKR: Tensor, scale_R: Tensor, multiplier_GR: Tensor, importance_GK1: Tensor
) -> Tensor:
    """The row scale that suits the values best which the weights take under another one."""
    multiplier_G1R = multiplier_GR.clamp_(1, _MULTIPLIERS)[:, None]
    whole_GKR = (x_GKR / (multiplier_G1R * scale_R)).round_().clamp_(-8, 7).mul_(multiplier_G1R)
    weighted_GKR = whole_GKR * importance_GK1
    power_R = (weighted_GKR * whole_GKR).sum(dim=(0, 1))
    fitted_R = (weighted_GKR * x_GKR).sum(dim=(0, 1)) / power_R
    return torch.where(power_R > 0, fitted_R, scale_R)


def _looked_up(error_TGR: Tensor, relative_GR: Tensor) -> Tensor:
    """The error at some relative scale, between two entries of the table or beyond its ends."""
    low, high = _RELATIVE[0], _RELATIVE[-1]
    steps = len(_RELATIVE) - 1
    ratio = torch.tensor(high / low).log() / steps
    place = (relative_GR / low).log() / ratio
    index = place.floor().clamp_(0, steps - 1)
    part = (place - index).clamp_(0, 1)
    index_1GR = index.long()[None]
    below = error_TGR.gather(0, index_1GR)[0]
    above = error_TGR.gather(0, index_1GR + 1)[0]
    error = below + part * (above - below)
    # A coarser step costs its square; a finer one cuts values off, which costs more.
    coarser = (relative_GR / high).clamp(min=1)
    finer = (low / relative_GR).clamp(min=1)
    weighted: Tensor = error * coarser.square() * finer.pow(6)
    return weighted


class _Pass:
    """One pass of rounding through the columns of some rows.

    A range of columns is rounded by halves: the first, then the second with the errors of the first
    moved into it, so that nearly all moving is done by products of matrices.
    """

    def __init__(self, x_UIR: Tensor, row_scale_R: Tensor, factor_UII: Tensor) -> None:
        units, _, rows = x_UIR.shape
        self.value_UIR = torch.empty(x_UIR.shape, dtype=torch.int8)
        self.multiplier_UGR = torch.empty((units, UNIT // GROUP, rows), dtype=torch.uint8)
        # What is still to be rounded; and in its place, once it is, its error.
        self._x_UIR = x_UIR
        self._row_scale_R = row_scale_R
        self._factor_UII = factor_UII
        self._pivot_UI1 = factor_UII.diagonal(dim1=1, dim2=2)[:, :, None]
        self._step_UR = row_scale_R.expand(units, rows)
        self._columns(0, UNIT)

    def _columns(self, first: int, last: int) -> None:
        if last - first == GROUP:
            importance_UK1 = self._pivot_UI1[:, first:last].pow(-2)
            x_UKR = self._x_UIR[:, first:last]
            multiplier_UR = _multiplier(x_UKR, self._row_scale_R, importance_UK1, dim=1)
            self.multiplier_UGR[:, first // GROUP] = multiplier_UR.to(torch.uint8)
            self._step_UR = multiplier_UR * self._row_scale_R
        if last - first == 1:
            self._column(first)
            return
        middle = (first + last) // 2
        self._columns(first, middle)
        onward_UII = self._factor_UII[:, first:middle, middle:last].transpose(1, 2)
        error_UIR = self._x_UIR[:, first:middle]
        self._x_UIR[:, middle:last].baddbmm_(onward_UII, error_UIR, alpha=-1)
        self._columns(middle, last)

    def _column(self, column: int) -> None:
        x_UR = self._x_UIR[:, column]
        rounded_UR = (x_UR / self._step_UR).round_().clamp_(-8, 7)
        self.value_UIR[:, column] = rounded_UR
        x_UR.sub_(rounded_UR.mul_(self._step_UR)).div_(self._pivot_UI1[:, column])


def _multiplier(x: Tensor, scale: Tensor, importance: Tensor, dim: int) -> Tensor:
    """The multiplier of least error for each group, float32.

    Args:
        x: the weights.
        scale: of the rows, like `x` without the columns of a group.
        importance: of the columns, like `x`.
        dim: of `x`, along which the columns of a group lie.
    """
    reach = torch.maximum(x.amax(dim) / 7, x.amin(dim) / -8)
    # Here nothing is cut off; a step further up can only be coarser.
    most = (reach / scale).ceil_().clamp_(1, _MULTIPLIERS)
    best = torch.full_like(most, torch.inf)
    multiplier = most
    for down in range(_MULTIPLIERS_TRIED):
        tried = (most - down).clamp_(min=1)
        error = _round_error(x, (tried * scale).unsqueeze(dim)).mul_(importance).sum(dim)
        multiplier = torch.where(error < best, tried, multiplier)
        best = torch.minimum(best, error)
    return multiplier
