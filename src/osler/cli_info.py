"""`osler info`: a model's sizes, tokens and memory needs."""

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from osler.cli_output import note, print_json

if TYPE_CHECKING:
    from osler.tasks.info import ModelInfo

PURPOSE = "show a model's sizes, tokens and memory needs, without reading its weights"
EXAMPLE = "osler info medgemma_4b"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="nano, a folder, a hub id, or a configuration: medgemma_4b, medgemma_27b_text, "
        "medgemma_27b, medsiglip_448",
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare the checksums of a packed model's weights"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Show it."""
    from osler.tasks.info import model_info, verify

    info = model_info(args.model)
    if args.verify:
        verify(args.model)
        note(f"{args.model}: all checksums are right")
    if args.json:
        print_json(asdict(info))
    else:
        print("\n".join(_lines(info)))


def _lines(info: "ModelInfo") -> Iterable[str]:
    yield f"{info.name}: {info.family}" + (f", version {info.version}" if info.version else "")
    if info.formats:
        yield "packed       " + ", ".join(f"{part} {kind}" for part, kind in info.formats.items())
    yield f"parameters   {sum(info.parameters.values()):,}"
    for part, count in info.parameters.items():
        yield f"  {part:20} {count:>14,}"
    if info.image_size_px:
        tokens = f", {info.tokens_per_image} tokens each" if info.tokens_per_image else ""
        yield f"images       {info.image_size_px} x {info.image_size_px} px{tokens}"
    yield f"context      {info.context_tokens:,} tokens"
    lengths = next(iter(info.cache_bytes.values()), {})
    yield "memory          weights" + "".join(f"{f'+ {n:,} tokens':>18}" for n in lengths)
    for dtype, size_bytes in info.weights_bytes.items():
        caches = info.cache_bytes.get(dtype, {}).values()
        yield f"  {dtype:10} {_memory(size_bytes):>10}" + "".join(
            f"{_memory(n):>18}" for n in caches
        )


def _memory(size_bytes: int) -> str:
    gibibytes = size_bytes / 2**30
    return f"{gibibytes:.1f} GiB" if gibibytes >= 1 else f"{size_bytes / 2**20:.1f} MiB"
