"""Options that several verbs share."""

import argparse


def add_model_options(parser: argparse.ArgumentParser, kind: str) -> None:
    """Which model, and where it runs."""
    parser.add_argument("--model", default="nano", help=f"{kind}: nano, a folder or a hub id")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", help="float32 or bfloat16; else what the checkpoint holds")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """How images become squares."""
    parser.add_argument(
        "--squaring",
        choices=["pad", "stretch"],
        default="pad",
        help="pad to a square with zeros, as MedGemma was trained, or stretch",
    )
    parser.add_argument(
        "--pan-and-scan", action="store_true", help="add crops of an image that is far from square"
    )


def add_slices_option(parser: argparse.ArgumentParser) -> None:
    """The limit on slices, which all verbs that take volumes share."""
    parser.add_argument(
        "--max-slices",
        type=_at_least_one,
        default=85,
        metavar="N",
        help="of all volumes and clips together, taken evenly",
    )


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
