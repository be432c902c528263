"""Programs that the tests run as processes of their own: `python -m tests.training.ranks WHAT OUT`.

`pair`, `recipes` and `later` are for two ranks, `alone` is a run that is to be killed.
"""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from osler.training.distributed import Parallel, joined_ranks
from osler.training.finetune.run import finetune
from osler.training.finetune.settings import FinetuneConfig, Method
from osler.training.loop import LoopConfig, train
from osler.training.recipes.distill import DistillConfig, distill
from osler.training.recipes.encoder import encoder
from osler.training.recipes.job import Job
from osler.training.recipes.pretrain import pretrain
from osler.training.recipes.reinforce import ReinforceConfig, reinforce
from osler.training.rollouts import RolloutConfig
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


def after_pretraining(out: Path) -> None:
    """Distillation, reinforcement in both layouts, and fine-tuning by every method."""
    with joined_ranks():
        teach(out, "fsdp2")
        for parallel in ("ddp", "fsdp2"):
            reward(out / parallel, parallel)
        for method in ("lora", "qlora", "full"):
            tune(out / method, method, "ddp")
        tune(out / "full-fsdp2", "full", "fsdp2")


def teach(out: Path, parallel: Parallel) -> None:
    """A student of the tiny decoder's opinions, stored by the first rank."""
    job = _job(out, "distill", parallel)
    distill(job, DistillConfig(teacher=str(job.model), stored=12, kept=20, length=60))


def reward(out: Path, parallel: Parallel) -> None:
    """Answers of each rank to its questions, learnt from by all."""
    rollouts = RolloutConfig(samples=4, max_new_tokens=6, guard_tokens=2)
    config = ReinforceConfig(rollouts=rollouts, asked_in_evaluation=3)
    reinforce(replace(_job(out, "reinforce", parallel), batch_size=4), config)


def tune(out: Path, method: Method, parallel: Parallel) -> None:
    """A few pictures with answers, and one text, which falls to one rank alone."""
    pack = next(parent / "pack" for parent in out.parents if (parent / "pack").exists())
    config = FinetuneConfig(
        method=method, epochs=2, batch_size=2, learning_rate=1e-2, parallel=parallel
    )
    finetune(
        pack / "tiny-decoder", pack / "chats.jsonl", out, config, validation=pack / "chats.jsonl"
    )


def _job(out: Path, name: str, parallel: Parallel) -> Job:
    pack = next(parent / "pack" for parent in out.parents if (parent / "pack").exists())
    return Job(
        data=pack,
        out=out / name,
        model=str(pack / "tiny-decoder"),
        steps=3,
        batch_size=4,
        learning_rate=1e-3,
        parallel=parallel,
        bf16=False,
        compile=False,
    )


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
    programs = {"pair": pair, "recipes": recipes, "later": after_pretraining, "alone": alone}
    programs[sys.argv[1]](Path(sys.argv[2]))
