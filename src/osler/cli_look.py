"""`osler look`: a table of what is under a path, and a contact sheet."""

import argparse
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from osler.cli_options import add_slices_option, add_slide_options, slide_view
from osler.cli_output import Progress, check_out, note, print_json, write_whole

if TYPE_CHECKING:
    from osler.tasks.look import Look, SeriesLook

PURPOSE = "say what images are under a path, what is odd about them, and what asking would cost"
EXAMPLE = "osler look study/ --sheet sheet.png"

_HEADER = ("", "study", "modality", "view", "contrast", "side", "images", "px", "mm", "tokens")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument(
        "path",
        metavar="PATH",
        help="a DICOM file, DICOMDIR, NIfTI file, slide or picture, a folder or a zip of them",
    )
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="draw the images into one picture"
    )
    parser.add_argument(
        "--model", default="nano", help="whose tokens to count: nano, a folder or a hub id"
    )
    parser.add_argument(
        "--version", choices=["1", "1.5"], default="1.5", help="how CT slices become RGB"
    )
    add_slices_option(parser)
    add_slide_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Look, print, and draw."""
    from osler.tasks.look import look

    if args.sheet is not None:
        if args.sheet.suffix.lower() != ".png":
            args.usage_error("--sheet must end in .png")
        check_out(args.sheet)
    with Progress() as progress:
        found = look(
            args.path,
            args.model,
            max_slices=args.max_slices,
            slides=slide_view(args),
            progress=progress,
        )
        if args.sheet is not None:
            _draw(found, args.sheet, args.version, progress)
    if args.json:
        print_json(found.record())
    else:
        print("\n".join(_lines(found)))


def _draw(found: "Look", sheet: Path, version: str, progress: Progress) -> None:
    from PIL import Image as Picture

    from osler.tasks.contact_sheet import contact_sheet

    picture = Picture.fromarray(contact_sheet(found, version=version, progress=progress))
    write_whole(sheet, partial(picture.save, format="PNG"))
    note(f"wrote {sheet}")


def _lines(found: "Look") -> Iterator[str]:
    rows = [_HEADER, *(_cells(number, row) for number, row in enumerate(found.series, start=1))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    findings = [(), *(row.findings for row in found.series)]
    for cells, odd in zip(rows, findings, strict=True):
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True) if width)
        yield "  ".join(padded).rstrip()
        yield from (f"{'':{widths[0]}}  ! {finding.text}" for finding in odd)
    for why, count in found.left_out.items():
        yield f"left out: {count} x {why}"
    total = "a question on all of it" if len(found.series) > 1 else "a question"
    yield (
        f"{total}: {found.tokens:,} tokens and its own, of {found.context_tokens:,} "
        f"({os.path.basename(found.model)})"
    )


def _cells(number: int, row: "SeriesLook") -> tuple[str, ...]:
    from osler.tasks.look import size_of

    view = " ".join(filter(None, [row.plane, "oblique" * row.is_oblique, row.view_position]))
    if row.magnification is not None:
        view = f"{row.magnification:g}x of {row.scanned_at:.3g}x"
    millimetres = [f"{spacing:.3g}" for spacing in row.pixel_spacing_mm or ()]
    if row.spacing_mm is not None:
        millimetres.append(f"{row.spacing_mm:.3g}")
    seen = f"{row.shown} of " if row.shown < row.frames else ""
    kind = {"volume": "slices", "clip": "frames", "slide": "patches", "images": ""}[row.kind]
    study = {"": "", "Current study": " current"}.get(row.study_is, " prior")
    return (
        str(number),
        f"{row.study}{study}",
        " ".join(filter(None, [row.modality or "-", row.body_part])),
        view or row.kind,
        "yes" if row.has_contrast else "",
        row.laterality or "",
        f"{seen}{row.frames} {kind}".rstrip(),
        size_of(row),
        " x ".join(millimetres),
        f"{row.tokens:,}",
    )
