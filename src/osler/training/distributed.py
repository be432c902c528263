"""Ranks, and how a model is laid over them.

`torchrun` starts one process a rank and says by environment variables which it is; without them
there is one rank. CPUs speak gloo, GPUs NCCL.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from osler.errors import InputError

Parallel = Literal["none", "ddp", "fsdp2"]
Model = TypeVar("Model", bound=nn.Module)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which of how many processes this is, and the device that it computes on."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def share(self, count: int) -> slice:
        """This rank's part of `count` things in order; the parts are equally long.

        >>> Ranks(rank=1, world=2).share(6)
        slice(3, 6, None)

        Raises:
            InputError: `count` cannot be divided evenly.
        """
        if count % self.world:
            raise InputError(f"a batch of {count} cannot be shared evenly by {self.world} ranks")
        size = count // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over the ranks."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            dist.barrier()


def current_ranks() -> Ranks:
    """The ranks as `joined_ranks` set them up, or one rank."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
    if not dist.is_initialized():
        return Ranks(device=device)
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size(), device=device)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the ranks that `torchrun` started, if it did, and leave them at the end."""
    if "WORLD_SIZE" not in os.environ:
        yield current_ranks()
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield current_ranks()
    finally:
        dist.destroy_process_group()


class Inside(nn.Module):
    """Runs a function within a model's `forward`, where the layouts' hooks have their effect.

    A loss calls parts of a model and uses parameters by themselves; sharded parameters are whole
    only while the outermost module runs.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)


class Layout:
    """A model over the ranks.

    Args:
        model: on its device already; its blocks are what its `nn.ModuleList`s hold.
        parallel: "none" for one rank; "ddp": every rank holds all; "fsdp2": parameters, gradients
            and the optimiser's state are sharded, block by block.
        ranks: over which.

    Raises:
        InputError: several ranks and "none".
    """

    def __init__(self, model: nn.Module, parallel: Parallel, ranks: Ranks) -> None:
        if ranks.world > 1 and parallel == "none":
            raise InputError(f"{ranks.world} ranks need parallel=ddp or fsdp2")
        self.inside = Inside(model)
        self._outermost: nn.Module = self.inside
        if parallel == "fsdp2":
            with_mesh = _mesh(ranks)
            for block in blocks(model):
                fully_shard(block, mesh=with_mesh)
            fully_shard(self.inside, mesh=with_mesh)
        elif parallel == "ddp" and ranks.world > 1:
            # They are constants, such as matrices in 4 bits, and would be sent at every step.
            buffers = [name for name, _ in self.inside.named_buffers()]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
                self.inside, buffers
            )
            self._outermost = DistributedDataParallel(self.inside)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that uses the model."""
        result: T = self._outermost(function, *args, **kwargs)
        return result

    @contextmanager
    def gradients_shared(self, shared: bool) -> Iterator[None]:
        """Whether a backward pass averages gradients over ranks, or only adds its own."""
        outermost = self._outermost
        if isinstance(outermost, FSDPModule):
            outermost.set_requires_gradient_sync(shared)
        if isinstance(outermost, DistributedDataParallel) and not shared:
            with outermost.no_sync():
                yield
        else:
            yield

    def reshard(self) -> None:
        """Let go of whole parameters, so that the next use sees the shards as they are now."""
        for module in self.inside.modules():
            if isinstance(module, FSDPModule):
                FSDPModule.reshard(module)


def _mesh(ranks: Ranks) -> Any:
    if not dist.is_initialized():
        raise InputError("parallel=fsdp2 runs under torchrun")
    return init_device_mesh(ranks.device.type, (ranks.world,))


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model: everything that its `nn.ModuleList`s hold."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return [block for stack in lists for block in stack]


def recompute_activations(model: nn.Module) -> None:
    """Keep only the blocks' inputs, and run each block again when its gradient is due."""
    for block in blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(model: nn.Module) -> None:
    """Fuse the blocks' many small steps, in which most of a small model's time goes.

    On CPUs the pattern matcher would put back the flash attention that `optim.attention` avoids.
    """
    for block in blocks(model):
        block.compile(dynamic=False, options={"pattern_matcher": False})


def is_sharded(model: nn.Module) -> bool:
    """Whether no rank holds all of a model."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def gathered(model: Model, dtype: torch.dtype, device: torch.device | str) -> Model:
    """A copy of a model in one place, whatever its layout; all ranks must call this.

    Args:
        model: one that its `config` makes.
        dtype: of the copy's weights.
        device: where to put them.
    """
    weights = {
        name: whole(value).detach().to(device, dtype, copy=True)
        for name, value in model.state_dict().items()
    }
    with torch.device("meta"):
        copy = type(model)(model.config)
    copy.load_state_dict(weights, assign=True)
    return copy.eval()


def whole(tensor: Tensor) -> Tensor:
    """A tensor as every rank sees it; sharded ones are gathered, so all ranks must call this."""
    if isinstance(tensor, DTensor):
        gathered: Tensor = tensor.full_tensor()
        return gathered
    return tensor
