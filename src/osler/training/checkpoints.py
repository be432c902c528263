"""Training states that are on disk whole or not at all, the last few kept.

A state is a folder `step-00001200`: the tensors as `torch.distributed.checkpoint` lays them out,
each rank writing its own share, and `state.json` with the rest. It is written as `*.partial` and
renamed when it is complete. Tensors are stored under their names, whatever the layout, so a state
written on one rank is read on two.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from osler.errors import CorruptFileError, UnreadableFileError
from osler.training.distributed import Ranks
from osler.training.ema import WeightAverage

_STATE = "state.json"
_PARTIAL = ".partial"


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a checkpoint stores of a run; the tensors are filled in place when it is read.

    Attributes:
        model: only what trains is stored: a task brings the rest again.
        optimizer: of the model's parameters.
        average: of the weights, where one is kept.
    """

    model: nn.Module
    optimizer: Optimizer
    average: WeightAverage | None

    def tensors(self) -> dict[str, Any]:
        """Everything to store, by name."""
        return {
            "model": _trained(self.model),
            "average": self.average.values if self.average else {},
            "optimizer": get_optimizer_state_dict(self.model, self.optimizer, options=_TRAINED),
        }


_TRAINED = StateDictOptions(ignore_frozen_params=True)


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: theirs alone.
        keep_last: how many stay.
        ranks: who writes.
    """

    def __init__(self, folder: Path, keep_last: int, ranks: Ranks) -> None:
        self._folder = folder
        self._keep_last = keep_last
        self._ranks = ranks

    def steps(self) -> list[int]:
        """The steps after which there is a whole checkpoint, earliest first."""
        names = [p.name for p in self._folder.glob("step-*") if p.suffix != _PARTIAL]
        return sorted(int(name.removeprefix("step-")) for name in names)

    def save(self, step: int, state: TrainingState, plain: dict[str, Any]) -> None:
        """Write a checkpoint, then let go of the oldest.

        Args:
            step: how many steps are done.
            state: tensors.
            plain: what JSON can hold, the same on every rank.
        """
        path = self._path(step)
        partial = path.with_suffix(_PARTIAL)
        if self._ranks.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self._ranks.wait()
        with self._alone_if_so() as no_dist:
            state_dict_saver.save(state.tensors(), checkpoint_id=partial, no_dist=no_dist)
        if self._ranks.rank == 0:
            (partial / _STATE).write_text(json.dumps(plain), encoding="utf-8")
            shutil.rmtree(path, ignore_errors=True)
            os.replace(partial, path)
            for old in self.steps()[: -self._keep_last]:
                shutil.rmtree(self._path(old))
        self._ranks.wait()

    def restore(self, state: TrainingState) -> tuple[int, dict[str, Any]] | None:
        """Fill `state` from the last checkpoint.

        Returns:
            How many steps it has done, and what was plain; None where there is no checkpoint.

        Raises:
            UnreadableFileError: its state.json is damaged.
            CorruptFileError: the tensors do not fit this model, or are damaged.
        """
        if not (steps := self.steps()):
            return None
        path = self._path(steps[-1])
        try:
            plain: dict[str, Any] = json.loads((path / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UnreadableFileError(f"{path / _STATE}: not a readable state") from error
        tensors = state.tensors()
        try:
            with self._alone_if_so() as no_dist:
                state_dict_loader.load(tensors, checkpoint_id=path, no_dist=no_dist)
        except (CheckpointException, RuntimeError, ValueError, KeyError) as error:
            raise CorruptFileError(f"{path}: does not hold the state of this model") from error
        set_optimizer_state_dict(
            state.model, state.optimizer, tensors["optimizer"], options=_TRAINED
        )
        return steps[-1], plain

    @contextmanager
    def _alone_if_so(self) -> Iterator[bool]:
        """Whether there is but one process; torch warns of that, which is meant."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield self._ranks.world == 1

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08}"
