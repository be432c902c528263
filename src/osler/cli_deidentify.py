"""`osler deidentify`: files without whom they are about, and what was done to them."""

import argparse
from pathlib import Path

from osler.cli_output import Progress, note, print_json
from osler.errors import OslerError

PURPOSE = "write DICOM files, FHIR records and plain texts without whom they are about"
EXAMPLE = "osler deidentify study/ record.json --out clean --key key.hex --retain-dates modified"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="PATH",
        help="DICOM files, FHIR bundles or NDJSON, plain texts; folders and zips of them",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="a new folder for the files"
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="whence UIDs, ids and days are drawn: the same in every run; made if it is not there. "
        "Without it, this run's are its own",
    )
    parser.add_argument(
        "--retain-dates",
        choices=["none", "modified", "full"],
        default="none",
        help="remove dates (of records the year stays), move all of a patient's by as many days, "
        "or keep them",
    )
    parser.add_argument(
        "--retain-characteristics",
        action="store_true",
        help="keep sex, age, size, weight and the like; in records the birth date, as dates go",
    )
    parser.add_argument(
        "--keep-pixels", action="store_true", help="do not look for text in pixels to black out"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> None:
    """Clean, and say what was done and which files were refused."""
    from osler.privacy.key_file import new_key, read_or_make_key
    from osler.privacy.profile import Profile
    from osler.privacy.run import deidentify

    if args.key is not None and args.out.resolve() in (
        args.key.resolve(),
        *args.key.resolve().parents,
    ):
        args.usage_error(
            "--key must not be inside --out: with it the pseudonyms could be tried out"
        )
    key = new_key() if args.key is None else read_or_make_key(args.key)
    profile = Profile(
        retain_dates=args.retain_dates,
        retain_characteristics=args.retain_characteristics,
        clean_pixels=not args.keep_pixels,
    )
    with Progress() as progress:
        report = deidentify(
            args.inputs,
            args.out,
            key=key,
            profile=profile,
            progress=lambda done, of: progress("cleaning", done, of),
        )
    if args.json:
        print_json(report.record())
    else:
        print(report.summary())
    for refused in report.refused:
        note(f"osler: {refused.name}: {refused.reason}")
    if report.files:
        note(f"wrote {args.out}, with report.json and report.txt")
    if report.refused:
        total = len(report.files) + len(report.refused)
        raise OslerError(f"{len(report.refused):,} of {total:,} files were refused and not written")
