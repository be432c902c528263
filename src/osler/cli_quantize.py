"""`osler quantize`: its options, its progress, what it prints."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from osler.cli_output import Progress

PURPOSE = "pack a model for the native CPU engine: one file, mapped into memory when loaded"
EXAMPLE = "osler quantize google/medgemma-4b-it --to int4 --out medgemma-4b-int4"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a MedGemma or MedSigLIP: nano, medsiglip-nano, a folder or a hub id; "
        "or a GGUF file (Q4_0, Q8_0, F16, BF16, F32), which is repacked without loss",
    )
    parser.add_argument(
        "--to",
        choices=["int4", "int8", "bf16"],
        help="format of the decoder, or of a MedSigLIP (int8, bf16); not for a GGUF file",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="a new folder, or one packed earlier"
    )
    parser.add_argument(
        "--encoder",
        choices=["int8", "bf16"],
        help="format of a MedGemma's vision tower; else int8, but bf16 with bf16 and GGUF",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE.txt",
        help="text for int4 to choose its values by; else one that comes with Osler",
    )
    parser.add_argument(
        "--mmproj", type=Path, metavar="FILE.gguf", help="the vision tower of a GGUF file"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="a checkpoint's folder whose tokenizer a GGUF file takes, instead of its own",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Pack, and say what became of it."""
    is_gguf = args.model.endswith(".gguf") or Path(args.model).is_file()
    if is_gguf and (args.to or args.calibration):
        args.usage_error("a GGUF file keeps its formats: no --to and no --calibration")
    if not is_gguf and (args.mmproj or args.tokenizer):
        args.usage_error("--mmproj and --tokenizer go with a GGUF file")
    if not is_gguf and args.to is None:
        args.usage_error("--to is needed: int4, int8 or bf16")

    with Progress() as progress:
        if is_gguf:
            from osler.tasks.repack import repack

            packed = repack(
                args.model,
                args.out,
                mmproj=args.mmproj,
                tokenizer=args.tokenizer,
                encoder=args.encoder,
                progress=progress,
            )
        else:
            from osler.tasks.quantize import quantize

            packed = quantize(
                args.model,
                args.out,
                to=args.to,
                encoder=args.encoder,
                calibration=args.calibration,
                progress=progress,
            )
    if args.json:
        print(json.dumps(asdict(packed), ensure_ascii=False, indent=2))
        return
    formats = {"decoder": packed.decoder, "encoder": packed.encoder}
    said = ", ".join(f"{part} {format}" for part, format in formats.items() if format)
    bits = 8 * packed.file_bytes / packed.parameters
    print(
        f"wrote {packed.folder}: {said}, {packed.file_bytes / 2**20:,.0f} MiB, "
        f"{bits:.2f} bits a weight",
        file=sys.stderr,
    )
    if packed.rounded:
        print(
            f"not kept exactly: {len(packed.rounded)} matrices, {packed.rounded[0]} first",
            file=sys.stderr,
        )
