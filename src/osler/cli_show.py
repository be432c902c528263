"""`osler show`: what a model sees, as pictures."""

import argparse
from functools import partial
from pathlib import Path

from osler.cli_options import (
    add_image_options,
    add_slices_option,
    add_slide_options,
    slide_view,
)
from osler.cli_output import Progress, check_out, note, print_json, write_whole

PURPOSE = "write what the model will see: the padded, windowed square, then any crops"
EXAMPLE = "osler show chest.dcm --out seen.png"
_MOST_LISTED = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument("image", metavar="IMAGE", help="as `osler ask` takes it")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FILE.png",
        help="with several squares, FILE-1.png, FILE-2.png and so on; of a whole slide FILE.png is "
        "all of it, with the patches drawn",
    )
    parser.add_argument("--model", default="nano", help="nano, a folder or a hub id")
    parser.add_argument("--version", choices=["1", "1.5"], help="how CT slices become RGB")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_image_options(parser)
    add_slices_option(parser)
    add_slide_options(parser)


def run(args: argparse.Namespace) -> None:
    """Read the image, make its squares, and write them."""
    from PIL import Image as Picture

    from osler.tasks.show import seen

    if args.out.suffix.lower() != ".png":
        args.usage_error("--out must end in .png")
    check_out(args.out)
    with Progress() as progress:
        shown = seen(
            args.image,
            args.model,
            version=args.version,
            squaring=args.squaring,
            pan_and_scan=args.pan_and_scan,
            max_slices=args.max_slices,
            slides=slide_view(args),
            progress=progress,
        )
    outs = _names(args.out, len(shown.squares), is_slide=shown.map is not None)
    pictures = [*([] if shown.map is None else [shown.map]), *shown.squares]
    for out, picture in zip(outs, pictures, strict=True):
        write_whole(out, partial(Picture.fromarray(picture).save, format="PNG"))
    if args.json:
        print_json({"out": [str(out) for out in outs], "side_px": shown.squares[0].shape[0]})
    else:
        note(f"wrote {_listed(outs)}")


def _listed(outs: list[Path]) -> str:
    if len(outs) <= _MOST_LISTED:
        return ", ".join(map(str, outs))
    return f"{outs[0]} to {outs[-1]}, {len(outs)} pictures"


def _names(out: Path, squares: int, *, is_slide: bool) -> list[Path]:
    width = len(str(squares))  # of one, so that a shell lists them in their order
    numbered = [out.with_stem(f"{out.stem}-{n:0{width}}") for n in range(1, squares + 1)]
    if is_slide:
        return [out, *numbered]
    return numbered if squares > 1 else [out]
