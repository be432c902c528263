"""`osler ask`: a question about images and a patient's record, and a model's answer."""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import osler
from osler.cli_options import (
    STYLES,
    add_image_options,
    add_model_options,
    add_slices_option,
    add_slide_options,
    at_least_one,
    slide_view,
)
from osler.cli_output import Progress, note, print_json
from osler.errors import OslerError

if TYPE_CHECKING:
    from osler.preprocess.record.rendering import Rendering
    from osler.tasks.case import Case, RecordUse
    from osler.tasks.chat_model import ChatModel

PURPOSE = "ask a question, with or without images and a patient's record, and stream the answer"
EXAMPLE = 'osler ask chest.dcm "Describe this X-ray."'


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.usage = "osler ask [PATH ...] QUESTION [options]"
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="PATH ... QUESTION",
        help="pictures, DICOM or NIfTI files, zips of them, records (FHIR, C-CDA), folders of all "
        "that, as many as you like or none, then what to ask",
    )
    add_model_options(parser, "a MedGemma")
    # With an engine, no name is its only model's.
    parser.set_defaults(model=None)
    parser.add_argument(
        "--engine",
        metavar="URL",
        help="send images and question to this server (OpenAI API), where the model then is",
    )
    parser.add_argument(
        "--engine-token-env", metavar="NAME", help="the environment variable with its token"
    )
    add_image_options(parser)
    add_slices_option(parser)
    add_slide_options(parser)
    parser.add_argument("--version", choices=["1", "1.5"], help="how CT slices become RGB")
    parser.add_argument("--system", help="a system message")
    _add_record_options(parser)
    _add_sampling_options(parser)


def _add_record_options(parser: argparse.ArgumentParser) -> None:
    record = parser.add_argument_group("a patient's record")
    record.add_argument("--patient", metavar="ID", help="whom, where there are several")
    record.add_argument(
        "--style",
        choices=STYLES,
        default="problems",
        help="as `osler record` writes it (default: problems)",
    )
    record.add_argument(
        "--budget",
        type=at_least_one,
        metavar="N",
        help="tokens of the record at most; else all that the model has room for: the least useful "
        "is left out first",
    )


def _add_sampling_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-new-tokens", type=int, default=200, metavar="N")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 takes the best token always"
    )
    parser.add_argument("--top-k", type=int, default=0, metavar="K")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P")
    parser.add_argument("--min-p", type=float, default=0.0, metavar="P")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X")
    parser.add_argument("--no-repeat-ngram-size", type=int, default=0, metavar="N")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before TEXT"
    )
    parser.add_argument("--seed", type=int, help="the same seed gives the same tokens")


def run(args: argparse.Namespace) -> None:
    """Read what was handed in, ask, and print as the answer comes."""
    from msgspec import to_builtins

    from osler.tasks.case import case_messages, read_case, record_use

    *paths, question = args.inputs
    if os.path.exists(question):
        args.usage_error(f"the last argument is the question, and {question!r} is a file")
    # Before the model: a wrong file should not cost the minute that a large one takes to load.
    with Progress() as progress:
        case = read_case(
            paths,
            patient=args.patient,
            max_slices=args.max_slices,
            slides=slide_view(args),
            progress=progress,
        )
    model = _chat_model(args)
    messages, rendering = case_messages(
        case,
        question,
        model,
        system=args.system,
        style=args.style,
        budget=args.budget,
        max_new_tokens=args.max_new_tokens,
    )
    for said in _notes(case, rendering):
        note(f"osler: note: {said}")
    stream = model.stream(
        messages,
        squaring=args.squaring,
        pan_and_scan=args.pan_and_scan,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
        no_repeat_ngram_size=args.no_repeat_ngram_size,
        stop=tuple(args.stop),
        seed=args.seed,
        on_thought=_show_thought,
    )
    for piece in stream:
        if not args.json:
            print(piece, end="", flush=True)
    answer = stream.answer
    use = None if rendering is None else record_use(case, rendering, answer)
    if args.json:
        print_json({**asdict(answer), "record": use and to_builtins(use)})
        return
    print(f"\n\n{answer.notice}", flush=True)
    if rendering is not None and use is not None:
        _print_sources(rendering, use)
    note(
        f"{answer.new_tokens} tokens in {answer.timings.total_s:.1f} s, "
        f"the first after {answer.timings.prepare_s + answer.timings.first_token_s:.1f} s"
    )


def _notes(case: "Case", rendering: "Rendering | None") -> Iterator[str]:
    from osler.tasks.record import said_of_join, said_of_record

    yield from case.content.notes
    if case.timeline is not None:
        yield from said_of_record(case.timeline)
    if case.join is not None:
        yield from said_of_join(case.join)
    if rendering is not None and rendering.dropped:
        yield f"left out of the record for want of room: {', '.join(map(str, rendering.dropped))}"


def _print_sources(rendering: "Rendering", use: "RecordUse") -> None:
    """What the answer names of the record, so that it can be checked."""
    from osler.tasks.case import cited_lines

    for line in cited_lines(rendering, use):
        print(f"source: {line}")
    for name in use.unknown:
        note(f"osler: warning: the answer names [{name}], which is no source of the record")


def _chat_model(args: argparse.Namespace) -> "ChatModel":
    if args.engine is None:
        return osler.load(args.model, device=args.device, dtype=args.dtype, version=args.version)
    from osler.inference.remote_address import remote_address

    if (warning := remote_address(args.engine).warning) is not None:
        note(f"osler: warning: {warning}")
    token = None if args.engine_token_env is None else _environment(args.engine_token_env)
    return osler.load(args.model, version=args.version, engine=args.engine, engine_token=token)


def _environment(name: str) -> str:
    if (value := os.environ.get(name)) is None:
        raise OslerError(f"there is no environment variable {name}")
    return value


def _show_thought(piece: str) -> None:
    print(piece, end="", file=sys.stderr, flush=True)
