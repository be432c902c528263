"""The one training loop. What is trained, on what, and by which loss is a `Task`.

    micro-batches -> loss -> gradients -> clip -> AdamW or Muon -> average -> log, checkpoint

A step has `accumulate` micro-batches on each of N ranks. Every one weighs as many items as its loss
is a mean over, so a step's gradient is that of the mean over all its items, however they were cut:
two ranks follow the curve of one.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from osler.errors import InputError, NonFiniteError
from osler.training.checkpoints import Checkpoints, TrainingState
from osler.training.distributed import (
    Layout,
    Parallel,
    Ranks,
    compile_blocks,
    current_ranks,
    recompute_activations,
    whole,
)
from osler.training.ema import WeightAverage
from osler.training.optim import (
    OptimizerName,
    adamw,
    attention,
    cosine,
    muon,
    precision,
    seed_everything,
    set_learning_rate,
)
from osler.training.run_log import RunLog

Batch = TypeVar("Batch")
BatchOut = TypeVar("BatchOut", covariant=True)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How a task is trained.

    Attributes:
        steps: optimiser steps in all.
        accumulate: micro-batches a step on each rank.
        optimizer: AdamW, or Muon for the blocks' matrices; they need the same learning rate.
        learning_rate: at its peak.
        schedule: after the warm-up, half a cosine down to 2 % of the peak, or constant.
        warmup_steps: steps of a linear rise from zero.
        weight_decay: of matrices; vectors are not decayed.
        clip_norm: the most that the norm of all gradients may be; None for no limit.
        bf16: matrix products in bfloat16 (autocast), on devices that have it (`optim.has_bf16`);
            weights stay as they are.
        ema_decay: share that the running average of the weights keeps at each step; None for no
            average. Where there is one it is what is evaluated and what is left in the model.
        evaluate_every: steps between two evaluations; None for one at the end only.
        checkpoint_every: steps between two checkpoints; there is always one at the end.
        keep_last: checkpoints that stay.
        activation_checkpointing: compute the blocks' activations again instead of keeping them.
        compile: fuse each block by torch.compile.
        parallel: layout over the ranks that torchrun started.
        seed: of everything random in a step.

    Raises:
        InputError: a number that makes no sense.
    """

    steps: int
    accumulate: int = 1
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 1.0
    bf16: bool = False
    ema_decay: float | None = None
    evaluate_every: int | None = None
    checkpoint_every: int = 100
    keep_last: int = 2
    activation_checkpointing: bool = False
    compile: bool = False
    parallel: Parallel = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "checkpoint_every", "keep_last"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1")
        if self.learning_rate <= 0:
            raise InputError("learning_rate must be above 0")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise InputError("ema_decay must lie between 0 and 1")
        if self.optimizer == "muon" and self.parallel == "fsdp2":
            raise InputError("muon needs whole matrices, and fsdp2 shards them: use ddp, or adamw")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if self.schedule == "cosine":
            return self.learning_rate * cosine(step, self.steps, self.warmup_steps)
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))


class Batches(Protocol[BatchOut]):
    """Micro-batches without end, each rank its share; the state says where the next one begins.

    The state is the same on every rank and holds what JSON can hold.
    """

    def __next__(self) -> BatchOut: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is in a micro-batch.

    Attributes:
        weight: what its loss is a mean over, as the number of tokens that are learnt.
        units: what it gives to read, tokens or images, for the speed.
    """

    weight: float
    units: int


class Task(Protocol[Batch]):
    """What is trained.

    A loss must use every parameter that requires a gradient, in every batch: ranks wait for one
    another's gradients. Parameters that do not require one rest.
    """

    @property
    def model(self) -> nn.Module: ...
    @property
    def batches(self) -> Batches[Batch]: ...
    @property
    def unit(self) -> str:
        """Name of `Size.units`: "tokens" or "images"."""
        ...

    def size(self, batch: Batch) -> Size: ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The mean loss over `size(batch).weight` items, and figures to log, always the same."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Validation figures, the model in evaluation mode; every rank computes all of them."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What became of a run: its folder, steps done, the last loss, the last evaluation."""

    out: Path
    steps: int
    loss: float | None
    evaluation: dict[str, float]


def train(
    task: Task[Batch],
    config: LoopConfig,
    out: Path,
    *,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
) -> RunResult:
    """Train a task's model in place.

    Args:
        task: model, batches, loss.
        config: how.
        out: folder of the run: run.json, metrics.jsonl, curves.png, checkpoints.
        resume: go on from the last checkpoint in `out`, where there is one.
        about: more for run.json: the recipe, its settings, what its data are.

    Returns:
        The run's outcome. The model is in evaluation mode and stays laid out as it was trained
        (sharded, compiled): another phase begins with what `recipes.job.save_result` saved.

    Raises:
        InputError: `out` holds a run already, and `resume` is not given.
        NonFiniteError: the loss is not a number any more.
    """
    ranks = current_ranks()
    checkpoints = Checkpoints(out / "checkpoints", config.keep_last, ranks)
    if checkpoints.steps() and not resume:
        raise InputError(f"{out}: holds a run already; resume it, or choose another folder")
    return _Run(task, config, ranks).to_the_end(out, checkpoints, about or {})


class _Run:
    """A task with its optimiser, laid over the ranks."""

    def __init__(self, task: Task[Any], config: LoopConfig, ranks: Ranks) -> None:
        self._task, self._config, self._ranks = task, config, ranks
        model = task.model.to(ranks.device)
        if config.activation_checkpointing:
            recompute_activations(model)
        if config.compile:
            compile_blocks(model)
        self._layout = Layout(model, config.parallel, ranks)
        inside = self._layout.inside
        self._parameters = [p for p in inside.parameters() if p.requires_grad]
        make = muon if config.optimizer == "muon" else adamw
        self._optimizer = make(inside, config.learning_rate, config.weight_decay, config.betas)
        self._average = WeightAverage(inside, config.ema_decay) if config.ema_decay else None
        self._state = TrainingState(model=inside, optimizer=self._optimizer, average=self._average)

    def to_the_end(
        self, out: Path, checkpoints: Checkpoints, about: Mapping[str, Any]
    ) -> RunResult:
        config = self._config
        first = 0
        if restored := checkpoints.restore(self._state):
            first, plain = restored
            self._task.batches.load_state_dict(plain["batches"])
        loss, evaluation = None, {}
        with RunLog(
            out,
            self._ranks,
            steps=config.steps,
            first=first,
            unit=self._task.unit,
            about={**about, "loop": asdict(config)},
        ) as log:
            for step in range(first, config.steps):
                loss, figures, units = self._step(step)
                done = step + 1
                log.step(done, loss, figures, units)
                last = done == config.steps
                if last or (config.evaluate_every and done % config.evaluate_every == 0):
                    evaluation = self._evaluate()
                    log.evaluation(done, evaluation)
                if last or done % config.checkpoint_every == 0:
                    plain = {"batches": self._task.batches.state_dict()}
                    checkpoints.save(done, self._state, plain)
        if first >= config.steps:  # it was complete
            evaluation = self._evaluate()
        if self._average:
            self._average.swap()
        self._layout.reshard()
        self._layout.inside.eval()
        return RunResult(out=out, steps=config.steps, loss=loss, evaluation=evaluation)

    def _step(self, step: int) -> tuple[float, dict[str, float], int]:
        """One optimiser step: the loss and figures over all ranks, and units read."""
        config, ranks, task = self._config, self._ranks, self._task
        seed_everything(config.seed, step, ranks.rank)
        learning_rate = config.learning_rate_at(step)
        set_learning_rate(self._optimizer, learning_rate)
        self._layout.inside.train()
        batches = [next(task.batches) for _ in range(config.accumulate)]
        sizes = [task.size(batch) for batch in batches]
        counted = torch.tensor([[s.weight for s in sizes], [s.units for s in sizes]]).double()
        weight, units = ranks.sum(counted.sum(dim=1).to(ranks.device)).tolist()
        sums: dict[str, float] = {}
        for turn, (batch, size) in enumerate(zip(batches, sizes, strict=True), start=1):
            with self._layout.gradients_shared(turn == config.accumulate):
                with precision(ranks.device, config.bf16):
                    loss, figures = self._layout.run(task.loss, to_device(batch, ranks.device))
                # Ranks average their gradients; micro-batches add theirs. Blocks that are
                # recomputed must attend as they did before.
                with attention(ranks.device):
                    (loss * (size.weight * ranks.world / weight)).backward()
            for name, value in {"loss": loss.item(), **figures}.items():
                sums[name] = sums.get(name, 0.0) + value * size.weight / weight
        totals = torch.tensor(list(sums.values()), dtype=torch.float64, device=ranks.device)
        means = dict(zip(sums, ranks.sum(totals).tolist(), strict=True))
        norm = self._clip()
        if not torch.isfinite(totals[0]) or norm != norm:
            raise NonFiniteError(f"step {step + 1}: the loss is {means['loss']}, its norm {norm}")
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._average:
            self._average.update(step + 1)
        mean_loss = means.pop("loss")
        return (
            mean_loss,
            {**means, "gradient_norm": norm, "learning_rate": learning_rate},
            int(units),
        )

    def _clip(self) -> float:
        most = self._config.clip_norm
        norm = nn.utils.clip_grad_norm_(self._parameters, float("inf") if most is None else most)
        return float(whole(norm))

    def _evaluate(self) -> dict[str, float]:
        """The task's figures, with the averaged weights where there are such."""
        layout = self._layout
        layout.inside.eval()
        layout.reshard()
        averaged = self._average.in_place() if self._average else nullcontext()
        with averaged, torch.no_grad(), precision(self._ranks.device, self._config.bf16):
            figures = layout.run(self._task.evaluate)
            layout.reshard()
        return figures


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of a batch: in dataclasses, dictionaries, lists, tuples."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(
            batch, **{f.name: to_device(getattr(batch, f.name), device) for f in fields(batch)}
        )
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
