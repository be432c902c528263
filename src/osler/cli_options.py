"""Options that several verbs share."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osler.preprocess.slides import SlideView

# Of a record: `osler.preprocess.record.rendering.STYLES`, without importing it.
STYLES = ("newest", "problems", "tables", "full")


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
        type=at_least_one,
        default=85,
        metavar="N",
        help="of all volumes and clips together, taken evenly",
    )


def add_slide_options(parser: argparse.ArgumentParser) -> None:
    """How whole slides are looked at, which all verbs that take them share."""
    slides = parser.add_argument_group("whole slides (SVS, tiled TIFF, MRXS, DICOM)")
    slides.add_argument(
        "--magnification", type=int, choices=[5, 10, 20], default=10, help="of the patches"
    )
    slides.add_argument(
        "--max-patches",
        type=at_least_one,
        default=126,
        metavar="N",
        help="of all slides together, taken evenly over the tissue",
    )
    slides.add_argument(
        "--mpp",
        type=float,
        metavar="UM",
        help="micrometres per pixel, in place of what a slide says",
    )


def slide_view(args: argparse.Namespace) -> "SlideView":
    """What `add_slide_options` asked for."""
    from osler.preprocess.slides import SlideView

    return SlideView(magnification=args.magnification, mpp=args.mpp, max_patches=args.max_patches)


def at_least_one(text: str) -> int:
    """A number as `argparse` takes it."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
