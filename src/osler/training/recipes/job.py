"""What every recipe is given, and what it leaves."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from osler.models.checkpoint import save_medgemma, save_medsiglip
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.tasks.checkpoint_extras import carry_over, notice
from osler.training.distributed import Parallel, Ranks, current_ranks, whole
from osler.training.loop import LoopConfig
from osler.training.streams.shards import ShardFile, fingerprint

Model = TypeVar("Model", bound=nn.Module)

# What recipes that go on from a trained model have in common.
COMMON = LoopConfig(steps=1000, warmup_steps=100, bf16=True, compile=True)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of a recipe. What is None is as the recipe has it.

    Attributes:
        data: folder of the data.
        out: folder of the run.
        resume: go on where the run in `out` stopped.
        model: a folder or name to start from.
        steps: optimiser steps; of each phase, where a recipe has several.
        learning_rate: at its peak.
        batch_size: samples a step over all ranks.
        seed: of weights, order, variation.
        parallel: layout over ranks; several are "ddp" unless said otherwise.
        bf16: matrix products in bfloat16.
        compile: fuse the blocks.
        weights: share of each source, by name; none for that of its rows.
        image_size: side of the encoder's images, px.
    """

    data: Path
    out: Path
    resume: bool = False
    model: str | None = None
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    parallel: Parallel | None = None
    bf16: bool | None = None
    compile: bool | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    image_size: int | None = None

    @property
    def ranks(self) -> Ranks:
        """Who trains."""
        return current_ranks()

    def loop(self, config: LoopConfig) -> LoopConfig:
        """A recipe's configuration with what was asked for in its place."""
        names = ("steps", "learning_rate", "seed", "parallel", "bf16", "compile")
        asked = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.ranks.world > 1:
            asked.setdefault("parallel", "ddp")
        return replace(config, **asked)

    def weights_of(self, sources: Iterable[str]) -> dict[str, float] | None:
        """The weights that were asked for, as far as they are of these sources."""
        return {name: self.weights[name] for name in sources if name in self.weights} or None

    def about(self, recipe: str, sources: Mapping[str, Sequence[ShardFile]]) -> dict[str, Any]:
        """What run.json says of recipe and data, with the hash of every file."""
        files = sorted({shard.path for shards in sources.values() for shard in shards})
        first = self.ranks.rank == 0
        return {
            "recipe": recipe,
            "model": self.model,
            "batch_size": self.batch_size,
            "weights": dict(self.weights),
            "sources": sorted(sources),
            "data": [fingerprint(file) for file in files if file.is_file()] if first else [],
        }


def part(data: Path, name: str) -> Path:
    """A folder's part by this name, where it has such a part; else the folder itself."""
    return data / name if (data / name).is_dir() else data


def in_own_memory(model: Model) -> Model:
    """Copy weights that were mapped from a file, so that they can be written to."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)
    return model


def save_result(
    model: MedGemma | MedSiglip,
    folder: Path,
    *,
    like: Path,
    says: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Save a trained model as a Hugging Face folder with its processor's files; by the first rank.

    Args:
        model: perhaps sharded: every rank calls this.
        folder: where to.
        like: a folder with the same processor.
        says: a notice of its own; None for the one in `like`.
        dtype: of the file's weights.
    """
    ranks = current_ranks()
    weights = {name: whole(value).detach() for name, value in model.state_dict().items()}
    if ranks.rank == 0:
        with torch.device("meta"):
            gathered = type(model)(model.config)  # type: ignore[arg-type]  # its own config's kind
        gathered.load_state_dict({n: v.to("cpu", dtype) for n, v in weights.items()}, assign=True)
        save: Callable[[Any, Path], None] = (
            save_medgemma if isinstance(model, MedGemma) else save_medsiglip
        )
        save(gathered, folder)
        carry_over(like, folder, says if says is not None else notice(like))
        if isinstance(model, MedSiglip):
            _say_size(folder, model.config.vision_config.image_size)
    ranks.wait()


def _say_size(folder: Path, image_size: int) -> None:
    """Let the processor's files name the size that the weights are for."""
    size = {"height": image_size, "width": image_size}
    for name, part_of in (
        ("preprocessor_config.json", None),
        ("processor_config.json", "image_processor"),
    ):
        path = folder / name
        values = json.loads(path.read_bytes()) if path.exists() else {}
        settings = values if part_of is None else values.get(part_of)
        if settings and settings.get("size") != size:
            settings["size"] = size
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            os.replace(partial, path)
