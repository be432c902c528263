"""Programs that the tests run as processes of their own: `python -m tests.training.ranks WHAT OUT`.

`pair` and `recipes` are for two ranks, `alone` is a run that is to be killed.
"""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from osler.training.distributed import Parallel, joined_ranks
from osler.training.loop import LoopConfig, train
from osler.training.recipes.encoder import encoder
from osler.training.recipes.job import Job
from osler.training.recipes.pretrain import pretrain
from tests.training.toys import Toy

CONFIG = LoopConfig(
    steps=10,
    learning_rate=1e-2,
    weight_decay=0.1,
    warmup_steps=2,
    ema_decay=0.9,
    evaluate_every=4,
    checkpoint_every=5,
)


def pair(out: Path) -> None:
    """Train from scratch in both layouts, then go on from what one rank left at `out/five`."""
    with joined_ranks():
        for parallel in ("ddp", "fsdp2"):
            config = replace(CONFIG, parallel=parallel)
            train(Toy(), config, out / parallel)
            train(Toy(), replace(config, accumulate=2), out / f"{parallel}-accumulated")
        train(Toy(), replace(CONFIG, parallel="fsdp2"), out / "five", resume=True)


def recipes(out: Path) -> None:
    """Two real recipes on tiny models, sharded."""
    with joined_ranks():
        both_recipes(out, "fsdp2")


def both_recipes(out: Path, parallel: Parallel) -> None:
    """An encoder and a decoder, from models and data beside `out`."""
    pack = out.parent / "pack"
    job = Job(
        data=pack,
        out=out / "encoder",
        model=str(pack / "tiny-encoder"),
        steps=3,
        batch_size=6,
        learning_rate=0.1,  # of which the warm-up leaves a hundredth
        parallel=parallel,
        bf16=False,
        compile=False,
    )
    encoder(job)
    pretrain(replace(job, out=out / "pretrain", model=str(pack / "tiny-decoder")))


LONG = replace(CONFIG, steps=2000, checkpoint_every=7, schedule="constant", evaluate_every=None)


def alone(out: Path) -> None:
    """Train with dropout until the end, or until killed."""
    train(Toy(dropout=0.2), LONG, out)


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    {"pair": pair, "recipes": recipes, "alone": alone}[sys.argv[1]](Path(sys.argv[2]))
