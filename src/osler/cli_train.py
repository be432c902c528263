"""`osler train`: a recipe, its data, and the few settings that are worth changing in passing."""

import argparse
from importlib import import_module
from pathlib import Path

from osler.cli_output import note, print_json
from osler.errors import OslerError

PURPOSE = "train a model by one of the recipes, on one rank or on those that torchrun started"
EXAMPLE = "osler train pretrain --data DIR --out runs/first --steps 200"

_RECIPES = {
    "encoder": "a MedSigLIP on images with captions, mixed by weight",
    "pretrain": "a MedGemma on text, then on images with text beside them",
    "distill": "a MedGemma on what a teacher finds likely, stored first",
    "reinforce": "a MedGemma by rewards for its own answers to questions about images",
    "nano": "both nano models from random weights, on the data pack, phase by phase",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    told = "; ".join(f"{name}: {purpose}" for name, purpose in _RECIPES.items())
    parser.add_argument("recipe", choices=_RECIPES, metavar="RECIPE", help=told)
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="DIR",
        help="files of rows: .jsonl[.gz], .parquet, .tar (WebDataset), or a folder of pictures; "
        "those whose name ends in -val are only measured on",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the run's folder")
    parser.add_argument(
        "--resume", action="store_true", help="go on where the run in --out stopped"
    )
    parser.add_argument("--model", metavar="MODEL", help="what to start from: nano, folder, hub id")
    parser.add_argument("--steps", type=int, metavar="N", help="optimiser steps of each phase")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="samples a step, over all ranks"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="PX",
        help="for the recipe encoder: side of the images; the positions are resampled",
    )
    parser.add_argument("--learning-rate", type=float, metavar="X", help="at its peak")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NAME=W",
        help="weight of a source, once for each; without, every row has the same chance",
    )
    parser.add_argument(
        "--parallel", choices=["ddp", "fsdp2"], help="layout over ranks; ddp unless said otherwise"
    )
    parser.add_argument("--float32", action="store_true", help="no bfloat16 in matrix products")
    parser.add_argument("--no-compile", action="store_true", help="do not fuse the blocks")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Train, and say where the model is."""
    weights = _weights(args)
    if args.image_size is not None and args.recipe != "encoder":
        args.usage_error("--image-size is for the recipe encoder")
    if not args.data.exists():
        raise OslerError(f"{args.data}: no such folder")

    from osler.training.distributed import joined_ranks
    from osler.training.recipes.job import Job

    job = Job(
        data=args.data,
        out=args.out,
        resume=args.resume,
        model=args.model,
        steps=args.steps,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        seed=args.seed,
        parallel=args.parallel,
        bf16=False if args.float32 else None,
        compile=False if args.no_compile else None,
        weights=weights,
        image_size=args.image_size,
    )
    recipe = getattr(import_module(f"osler.training.recipes.{args.recipe}"), args.recipe)
    with joined_ranks() as ranks:
        folder = recipe(job)
    if ranks.rank == 0:
        if args.json:
            print_json({"recipe": args.recipe, "out": str(args.out), "model": str(folder)})
        else:
            note(f"wrote {folder}")


def _weights(args: argparse.Namespace) -> dict[str, float]:
    weights = {}
    for given in args.weight:
        name, _, number = given.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            args.usage_error(f"--weight takes NAME=W, as web=0.98, not {given!r}")
        if not name:
            args.usage_error(f"--weight takes NAME=W, as web=0.98, not {given!r}")
    return weights
