"""`osler pull`, `osler push`, `osler listen`, `osler result`: studies from archives and back."""

import argparse
import json
import os
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osler.cli_output import Progress, note, print_json
from osler.errors import InputError

if TYPE_CHECKING:
    from osler.archive.classic import ClassicArchive
    from osler.archive.dicomweb import WebArchive
    from osler.archive.listen import Study
    from osler.archive.settings import LinkSettings

_ARCHIVE = "a DICOMweb URL, or TITLE@host:port of classic DICOM"


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What the command line needs to know of a verb."""

    name: str
    purpose: str
    example: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def _pull_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="ARCHIVE", help=_ARCHIVE)
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder for the studies")
    what = parser.add_argument_group("what to fetch")
    what.add_argument("--study", metavar="UID", help="one study")
    what.add_argument("--series", metavar="UID", help="only this series")
    what.add_argument("--patient", metavar="ID", help="all studies of a patient")
    what.add_argument("--accession", metavar="NUMBER", help="the studies of an order")
    what.add_argument(
        "--query",
        action="append",
        default=[],
        metavar="KEYWORD=VALUE",
        help="match a DICOM attribute, as StudyDate=20240101-20240131 or Modality=CT; repeat it",
    )
    what.add_argument("--list", action="store_true", help="list the studies, and fetch nothing")
    _link_options(parser)
    move = parser.add_argument_group("C-MOVE, for archives without C-GET")
    move.add_argument("--move", action="store_true", help="have the archive send to --title")
    move.add_argument("--move-host", default="127.0.0.1", help="where to listen for it")
    move.add_argument("--move-port", type=int, default=11112, help="the port that it knows")


def _push_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="*", metavar="PATH", help="DICOM files, and folders of them"
    )
    parser.add_argument("--to", required=True, metavar="ARCHIVE", help=_ARCHIVE)
    _link_options(parser)


def _link_options(parser: argparse.ArgumentParser) -> None:
    link = parser.add_argument_group("the archive")
    link.add_argument("--check", action="store_true", help="only ask whether it is there")
    link.add_argument("--title", default="OSLER", help="our AE title (default OSLER)")
    link.add_argument("--token-env", metavar="NAME", help="the environment variable of a token")
    link.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="of silence")
    link.add_argument("--attempts", type=int, default=4, metavar="N", help="before giving up")
    link.add_argument("--tls", action="store_true", help="encrypt classic DICOM")
    _certificate_options(link, "certificates to trust, PEM; else those of this machine")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _certificate_options(group: "argparse._ArgumentGroup", ca: str) -> None:
    group.add_argument("--ca", type=Path, metavar="FILE", help=ca)
    group.add_argument("--cert", type=Path, metavar="FILE", help="our certificate, PEM")
    group.add_argument("--key", type=Path, metavar="FILE", help="its key, unless it is there too")


def _listen_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="the folder for complete studies"
    )
    parser.add_argument("--title", default="OSLER", help="our AE title (default OSLER)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen; beyond this machine with --accept"
    )
    parser.add_argument("--port", type=int, default=11112, help="0 takes a free one")
    parser.add_argument(
        "--accept", action="append", default=[], metavar="TITLE", help="who may send; repeat it"
    )
    parser.add_argument(
        "--quiet",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="a study is complete when nothing has come of it for so long",
    )
    parser.add_argument(
        "--run",
        dest="command",
        metavar="COMMAND",
        help="run this with the folder of each complete study behind it",
    )
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="of silence")
    tls = parser.add_argument_group("TLS, with a certificate")
    _certificate_options(tls, "senders must bring a certificate of these, PEM")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each study")


def _result_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("answer", type=Path, metavar="ANSWER.json", help="of osler ask --json")
    parser.add_argument(
        "--source",
        required=True,
        nargs="+",
        action="extend",
        type=Path,
        metavar="PATH",
        help="the DICOM files that it was asked about, or their folders",
    )
    parser.add_argument(
        "--seen",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="FILE.png",
        help="what the model saw, as `osler show` writes it: seen-*.png",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _pull(args: argparse.Namespace) -> None:
    from osler.archive.pull import pull
    from osler.archive.query import Query

    if args.check:
        _check(args, args.source)
        return
    named = {
        "StudyInstanceUID": args.study,
        "SeriesInstanceUID": args.series,
        "PatientID": args.patient,
        "AccessionNumber": args.accession,
    }
    keys = {key: value for key, value in named.items() if value is not None}
    for pair in args.query:
        key, equals, value = pair.partition("=")
        if not equals:
            args.usage_error("--query takes KEYWORD=VALUE")
        keys[key.strip()] = value.strip()
    if not keys:
        args.usage_error("what to fetch: --study, --patient, --accession or --query")
    if not args.list and args.out is None:
        args.usage_error("--out is needed, or --list")
    query = Query(keys=keys)
    with closing(_archive(args, args.source)) as archive:
        if args.list:
            _list(archive.studies(query), as_json=args.json)
            return
        with Progress() as progress:
            pulled = pull(archive, query, args.out, progress=partial(progress, "fetching"))
    if args.json:
        print_json({**asdict(pulled), "folder": str(pulled.folder)})
        return
    note(
        f"{pulled.folder}: {_counted(pulled.studies)}, {pulled.fetched} instances fetched, "
        f"{pulled.kept} were there"
    )


def _list(studies: "list[Any]", *, as_json: bool) -> None:
    keys = {
        "study": "StudyInstanceUID",
        "date": "StudyDate",
        "modalities": "ModalitiesInStudy",
        "instances": "NumberOfStudyRelatedInstances",
        "description": "StudyDescription",
    }
    rows = [{name: _shown(study.get(key)) for name, key in keys.items()} for study in studies]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print("   ".join(row.values()).rstrip())


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str | int) else "/".join(map(str, value))


def _push(args: argparse.Namespace) -> None:
    from osler.archive.push import gather, push

    if args.check:
        _check(args, args.to)
        return
    if not args.inputs:
        args.usage_error("what to send: files or folders")
    files = gather(map(Path, args.inputs))
    with closing(_archive(args, args.to)) as archive, Progress() as progress:
        pushed = push(archive, files, progress=partial(progress, "sending"))
    if args.json:
        print_json({"to": args.to, **asdict(pushed)})
        return
    note(f"{args.to} has {pushed.instances} instances of {_counted(pushed.studies)}")


def _check(args: argparse.Namespace, address: str) -> None:
    with closing(_archive(args, address)) as archive:
        archive.check()
    if args.json:
        print_json({"archive": str(archive.address), "answers": True})
    else:
        note(f"{archive.address} answers")


def _archive(args: argparse.Namespace, address: str) -> "WebArchive | ClassicArchive":
    from osler.archive.address import archive_address
    from osler.archive.classic import MoveTarget
    from osler.archive.opened import open_archive
    from osler.archive.settings import tls_of_server

    move = None
    if getattr(args, "move", False):
        tls = tls_of_server(args.cert, args.key, args.ca) if args.tls and args.cert else None
        move = MoveTarget(host=args.move_host, port=args.move_port, tls=tls)
    where = archive_address(address)
    if not (where.is_here or args.tls or str(where).startswith("https:")):
        note(
            f"osler: warning: {where} is another machine and not encrypted: "
            "all on the way can read what is sent"
        )
    return open_archive(address, _link(args), move=move)


def _link(args: argparse.Namespace) -> "LinkSettings":
    from osler.archive.settings import LinkSettings, tls_of_client

    token = None
    if args.token_env is not None and not (token := os.environ.get(args.token_env)):
        raise InputError(f"--token-env: there is no variable {args.token_env}, or it is empty")
    tls = None
    if args.tls or args.ca or args.cert:
        tls = tls_of_client(args.ca, args.cert, args.key)
    return LinkSettings(
        title=args.title, timeout_s=args.timeout, attempts=args.attempts, token=token, tls=tls
    )


def _listen(args: argparse.Namespace) -> None:
    from osler.archive.listen import Listener, ListenSettings
    from osler.archive.settings import tls_of_server

    if args.cert is None and (args.ca or args.key):
        args.usage_error("TLS needs --cert")
    settings = ListenSettings(
        title=args.title,
        host=args.host,
        port=args.port,
        accepted_titles=tuple(args.accept),
        quiet_s=args.quiet,
        command=args.command,
        timeout_s=args.timeout,
        tls=None if args.cert is None else tls_of_server(args.cert, args.key, args.ca),
    )
    listener = Listener(args.out, settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: listener.tell_to_end())

    def say(study: "Study") -> None:
        if args.json:
            print(json.dumps({**asdict(study), "folder": str(study.folder)}), flush=True)
        else:
            print(study.folder, flush=True)
        if study.exit_code:
            note(f"osler: the command ended with {study.exit_code} for {study.folder}")

    listener.listen(
        on_ready=lambda: note(f"{args.title} listens on {args.host}:{listener.port}"), on_study=say
    )


def _result(args: argparse.Namespace) -> None:
    from osler.archive.results.write import write_results

    results = write_results(args.answer, args.source, args.out, seen=args.seen)
    if args.json:
        print_json({"study": results.study_uid, "files": [str(path) for path in results.files]})
        return
    for path in results.files:
        print(path)


def _counted(studies: tuple[str, ...]) -> str:
    return "1 study" if len(studies) == 1 else f"{len(studies)} studies"


VERBS = (
    Verb(
        name="pull",
        purpose="fetch studies from an archive; what is there already is not fetched again",
        example="osler pull PACS@10.0.0.5:104 --accession A1234 --out studies",
        add_options=_pull_options,
        run=_pull,
    ),
    Verb(
        name="push",
        purpose="send DICOM files to an archive, as they are",
        example="osler push results --to https://pacs.example/dicom-web --token-env PACS_TOKEN",
        add_options=_push_options,
        run=_push,
    ),
    Verb(
        name="listen",
        purpose="receive studies, and hand each on when it is complete, until told to end",
        example="osler listen --out studies --host 10.0.0.7 --accept CT1 --run ./draft.sh",
        add_options=_listen_options,
        run=_listen,
    ),
    Verb(
        name="result",
        purpose="write an answer as DICOM: a text report, a PDF, and what the model saw",
        example="osler result answer.json --source chest.dcm --seen seen.png --out results",
        add_options=_result_options,
        run=_result,
    ),
)
