"""`osler finetune` and `osler merge`: their options, their progress, what they print."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osler.cli_output import Progress, note, print_json

if TYPE_CHECKING:
    from osler.training.finetune.probe import Probed
    from osler.training.finetune.settings import Finetuned

PURPOSE = "teach a model from your own images and answers: an adapter, a checkpoint or a classifier"
EXAMPLE = "osler finetune --model nano --data scans --val held-out --method lora --out adapter"
MERGE_PURPOSE = "make one ordinary checkpoint of an adapter and the model that it is for"
MERGE_EXAMPLE = "osler merge adapter --out my-model"

# Options that a probe has no use for, by their names in the settings.
_TRAINING = (
    "epochs",
    "batch_size",
    "accumulate",
    "learning_rate",
    "question",
    "most_tokens",
    "parallel",
)
_LORA = ("rank", "alpha", "dropout")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `finetune` takes."""
    parser.add_argument("--model", required=True, help="nano, a folder or a hub id")
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="a CSV with columns image,label or SOPInstanceUID,label (DICOM) or "
        "image,question,answer; a JSONL of messages; or a folder with one such file",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--method",
        choices=["lora", "qlora", "full", "probe"],
        default="lora",
        help="lora: an adapter in PEFT's form; qlora: the same over a model held in 4 bits; full: "
        "all weights; probe: a linear classifier on a MedSigLIP, for few labels; else lora",
    )
    parser.add_argument(
        "--val", metavar="PATH", help="data of the same form, only measured on, before and after"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="times each row is met; else 5")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="rows that go through together; else 4"
    )
    parser.add_argument(
        "--accumulate", type=int, metavar="N", help="such batches for each step; else 1"
    )
    parser.add_argument(
        "--learning-rate", type=float, metavar="X", help="else by the method and the model's width"
    )
    parser.add_argument("--rank", type=int, metavar="R", help="of the adapter; else 16")
    parser.add_argument(
        "--alpha", type=float, metavar="X", help="the adapter counts alpha/rank; else 16"
    )
    parser.add_argument(
        "--dropout", type=float, metavar="P", help="of the adapter's inputs; else 0"
    )
    parser.add_argument(
        "--target-modules",
        metavar="A,B",
        help="layers that get an adapter, by their last names, as q_proj,v_proj; else all",
    )
    parser.add_argument(
        "--question", help="asked about images with labels; else one that names all labels"
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        dest="most_tokens",
        metavar="N",
        help="a row may have, with its images; else 2048",
    )
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="compute activations twice rather than keep them: slower, far less memory",
    )
    parser.add_argument(
        "--parallel",
        choices=["ddp", "fsdp2"],
        help="layout over the ranks that torchrun started; fsdp2 goes with full; else ddp",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Fine-tune, and say what became of it."""
    training = {name: value for name in _TRAINING if (value := getattr(args, name)) is not None}
    lora = {name: value for name in _LORA if (value := getattr(args, name)) is not None}
    targets = [name.strip() for name in (args.target_modules or "").split(",") if name.strip()]
    if args.method == "probe" and (training or args.recompute or args.resume):
        args.usage_error("a probe takes no other options than --val, --seed and --json")
    if args.method in ("probe", "full") and (lora or targets):
        args.usage_error("--rank, --alpha, --dropout and --target-modules go with lora and qlora")

    if args.method == "probe":
        from osler.training.finetune.probe import probe

        with Progress() as progress:
            probed = probe(
                args.model,
                args.data,
                args.out,
                validation=args.val,
                seed=args.seed,
                progress=progress,
            )
        _print(args.json, probed, _probed_lines)
        return
    from osler.models.lora import ALL_LINEAR, LoraConfig
    from osler.training.distributed import joined_ranks
    from osler.training.finetune.output import silent
    from osler.training.finetune.run import finetune
    from osler.training.finetune.settings import FinetuneConfig

    config = FinetuneConfig(
        method=args.method,
        lora=LoraConfig(**lora),
        target_modules=tuple(targets) or ALL_LINEAR,
        recompute=args.recompute,
        seed=args.seed,
        **training,
    )
    with joined_ranks() as ranks, Progress() as progress:
        done = finetune(
            args.model,
            args.data,
            args.out,
            config,
            validation=args.val,
            resume=args.resume,
            progress=progress if ranks.rank == 0 else silent,
        )
    if ranks.rank == 0:
        _print(args.json, done, _finetuned_lines)


def add_merge_options(parser: argparse.ArgumentParser) -> None:
    """Add what `merge` takes."""
    parser.add_argument("adapter", metavar="ADAPTER", help="a folder in PEFT's form")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--model", help="the adapter's base; else the one that it names")
    parser.add_argument("--dtype", help="float32 or bfloat16; else what the base holds")
    parser.add_argument(
        "--limit",
        type=float,
        metavar="X",
        help="refuse where a logit moves by more; else 0.001 in float32, 0.25 in bfloat16",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_merge(args: argparse.Namespace) -> None:
    """Merge, and say by how much the logits moved."""
    from osler.training.finetune.merge import merge

    merged = merge(args.adapter, args.out, base=args.model, dtype=args.dtype, limit=args.limit)
    if args.json:
        print_json(asdict(merged))
        return
    note(
        f"wrote {merged.folder}: {merged.dtype}; no logit moved by more than "
        f"{merged.largest_difference:.2g} (limit {merged.limit:.2g}), "
        f"{merged.same_choice:.1%} of the likeliest tokens are the same"
    )


def _print(as_json: bool, done: Any, lines: Callable[[Any], Iterator[str]]) -> None:
    if as_json:
        print_json(asdict(done))
    else:
        print("\n".join(lines(done)))


def _finetuned_lines(done: "Finetuned") -> Iterator[str]:
    what = "checkpoint" if done.method == "full" else "adapter"
    yield (
        f"wrote {done.folder}: {what}; {done.trained_parameters:,} weights learnt from "
        f"{done.examples:,} examples in {done.steps:,} steps"
    )
    if done.after:
        yield f"on {done.validation_examples:,} examples not learnt from:"
    for name, after in done.after.items():
        said = name.removeprefix("validation_")
        form = "{:.1%}" if said == "accuracy" else "{:.3f}"
        yield f"  {said:8}  before {form.format(done.before[name])}  after {form.format(after)}"
    if done.method != "full":
        yield f"to use it: osler ask --model {done.folder}, or osler merge {done.folder} --out DIR"


def _probed_lines(done: "Probed") -> Iterator[str]:
    yield (
        f"wrote {done.folder}: classifier of {', '.join(done.labels)}, "
        f"from {done.examples:,} images"
    )
    yield f"accuracy, cross-validated: {done.cross_validation_accuracy:.1%}"
    for accuracy in done.after.values():
        yield f"accuracy on {done.validation_examples:,} images not learnt from: {accuracy:.1%}"
    yield f"to use it: osler classify IMAGE --head {done.folder}"
