"""`osler record`: a patient's record as a timeline, in tables, in full, or as a chart of a test."""

import argparse
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osler.cli_options import STYLES, at_least_one
from osler.cli_output import Progress, check_out, note, print_json, write_whole
from osler.errors import InputError

if TYPE_CHECKING:
    from osler.ingest.fhir.records import Timeline
    from osler.tasks.record import ImageJoin

PURPOSE = "print a patient's record, from FHIR or C-CDA, as a timeline that a model can cite"
EXAMPLE = "osler record patient.json --style problems --budget 4000"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument(
        "path",
        metavar="PATH",
        help="a FHIR bundle, NDJSON or C-CDA file, a folder or zip of an export, or a server's URL",
    )
    parser.add_argument("--patient", metavar="ID", help="whom, where there are several")
    parser.add_argument(
        "--list", action="store_true", help="print the patients' ids and how much there is of each"
    )
    parser.add_argument(
        "--style",
        choices=STYLES,
        default="newest",
        help="newest first; today's problems first; tables of tests; or all in full",
    )
    parser.add_argument(
        "--test", metavar="NAME", help="with --style tables: only tests of that name or code"
    )
    parser.add_argument(
        "--short-ids", action="store_true", help="cut ids to what tells them apart: fewer tokens"
    )
    parser.add_argument(
        "--budget",
        type=at_least_one,
        metavar="N",
        help="tokens at most: the least useful is left out first",
    )
    parser.add_argument("--model", default="nano", help="whose tokens: nano, a folder or a hub id")
    parser.add_argument("--chart", metavar="NAME", help="draw a test of that name or code")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="where; else NAME.png here")
    parser.add_argument(
        "--images", metavar="PATH", help="say which images there belong to the imaging studies"
    )
    server = parser.add_argument_group("a FHIR server")
    server.add_argument("--since", metavar="DATE", help="only what was written since then")
    server.add_argument("--token-env", metavar="NAME", help="the environment variable of a token")
    server.add_argument("--client-id", metavar="ID", help="for a token by SMART Backend Services")
    server.add_argument("--key", type=Path, metavar="FILE", help="its private key, JWK or PEM")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Read, and print or draw."""
    _check(args)
    if args.list:
        _list(args)
        return
    from osler.tasks.record import said_of_record

    timeline = _timeline(args)
    joined = _joined(args, timeline) if args.images else None
    for said in said_of_record(timeline):
        note(said)
    if args.chart is not None:
        _draw(args, timeline)
    else:
        _print(args, timeline, joined)


def _check(args: argparse.Namespace) -> None:
    is_server = _is_url(args.path)
    if args.test is not None and args.style != "tables":
        args.usage_error("--test goes with --style tables")
    if args.out is not None and (args.chart is None or args.out.suffix.lower() != ".png"):
        args.usage_error("--out goes with --chart, and must end in .png")
    if (args.client_id is None) != (args.key is None):
        args.usage_error("--client-id and --key go together")
    if not is_server and (args.since or args.token_env or args.client_id):
        args.usage_error("--since, --token-env and --client-id go with a server's URL")
    if is_server and (args.patient is None or args.list):
        args.usage_error("a server needs --patient, and lists none")


def _is_url(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def _list(args: argparse.Namespace) -> None:
    from osler.ingest.fhir.read import patients_in

    found = patients_in(args.path)
    if args.json:
        print_json(found)
        return
    for source, count in found.items():
        print(f"{source.removeprefix('Patient/')}  {count:,} resources")


def _timeline(args: argparse.Namespace) -> "Timeline":
    if not _is_url(args.path):
        from osler.ingest.fhir.read import read_record

        return read_record(args.path, patient=args.patient)
    from osler.archive.smart_token import BackendClient
    from osler.tasks.record import fetch_record, warning_of

    token = None
    if args.token_env is not None and (token := os.environ.get(args.token_env)) is None:
        raise InputError(f"there is no environment variable {args.token_env}")
    client = BackendClient(client_id=args.client_id, key_file=args.key) if args.key else None
    if (warning := warning_of(args.path)) is not None:
        note(f"osler: warning: {warning}")
    fetched = fetch_record(args.path, args.patient, since=args.since, token=token, client=client)
    if fetched.unsearched:
        note(f"osler: note: the server does not search for {', '.join(fetched.unsearched)}")
    return fetched.timeline


def _joined(args: argparse.Namespace, timeline: "Timeline") -> "ImageJoin":
    from osler.ingest.scan import scan
    from osler.tasks.record import join_images, said_of_join

    with Progress() as progress:
        found = scan(args.images, progress=lambda done, of: progress("looking", done, of))
    joined = join_images(timeline, found.studies)
    for said in said_of_join(joined):
        note(said)
    return joined


def _print(args: argparse.Namespace, timeline: "Timeline", joined: "ImageJoin | None") -> None:
    from msgspec import to_builtins

    from osler.preprocess.record.rendering import render
    from osler.tasks.record import token_counter

    rendering = render(
        timeline,
        args.style,
        test=args.test,
        short_ids=args.short_ids,
        budget=args.budget,
        count=len if args.budget is None else token_counter(args.model),
    )
    if not args.json:
        print(rendering.text)
        return
    found: dict[str, Any] = {"record": to_builtins(timeline), **asdict(rendering)}
    if joined is not None:
        found["images"] = asdict(joined)
    print_json(found)


def _draw(args: argparse.Namespace, timeline: "Timeline") -> None:
    from osler.tasks.record_chart import chart_series, draw_chart

    name = re.sub("[^a-z0-9]+", "-", args.chart.lower()).strip("-") or "chart"
    out = args.out or Path(f"{name}.png")
    check_out(out)
    series = chart_series(timeline, args.chart)
    write_whole(out, lambda file: draw_chart(series, file))
    if args.json:
        drawn = [
            {"name": one.name, "code": one.code, "unit": one.unit, "points": len(one.points)}
            for one in series
        ]
        print_json({"out": str(out), "tests": drawn})
    else:
        note(f"wrote {out}: {', '.join(one.name for one in series)}")
