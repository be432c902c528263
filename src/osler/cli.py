"""The `osler` command: parses, calls a task, prints.

Answers and results go to standard output, everything else to standard error. Exit codes: 0 done,
1 something in the files or models is wrong (one line says what), 2 wrong usage, 130 interrupted.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import osler
from osler import (
    cli_archive,
    cli_ask,
    cli_deidentify,
    cli_finetune,
    cli_info,
    cli_look,
    cli_quantize,
    cli_record,
    cli_show,
    cli_train,
)
from osler.cli_options import add_model_options, add_slide_options, slide_view
from osler.cli_output import check_out, note, print_json, write_whole
from osler.errors import OslerError
from osler.serving.options import add_options as add_serve_options

# Verbs import their tasks when they run: torch takes seconds, and `osler --help` should not.

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # Libraries warn in several lines, and may quote values of a patient's file.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    args = _parse(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except OslerError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        print("\nosler: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _fail(reason: str) -> int:
    print(f"osler: {' '.join(reason.split())}", file=sys.stderr)
    return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    # Behind an option, argparse leaves what would be more images, or the question, over:
    # osler ask a.png --seed 1 "question".
    args, words = parser.parse_known_args(argv)
    if words and ("inputs" not in args or any(word.startswith("-") for word in words)):
        args.usage_error(f"unrecognized arguments: {' '.join(words)}")
    if words:
        args.inputs += words
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="osler", description="The MedGemma system, where the data is."
    )
    parser.add_argument("--version", action="version", version=f"osler {osler.__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    ask = _verb(verbs, "ask", cli_ask.run, cli_ask.PURPOSE, cli_ask.EXAMPLE)
    cli_ask.add_options(ask)

    classify = _verb(
        verbs,
        "classify",
        _classify,
        "say which of some labels fits each image best",
        'osler classify a.dcm b.png --labels "normal chest X-ray,pneumonia"',
    )
    classify.add_argument(
        "inputs", nargs="+", metavar="IMAGE", help="a picture, a DICOM file or a whole slide"
    )
    classify.add_argument("--labels", metavar="A,B", help="two or more, separated by commas")
    classify.add_argument(
        "--head", metavar="DIR", help="a classifier that `osler finetune --method probe` made"
    )
    add_model_options(classify, "a MedSigLIP")
    add_slide_options(classify)
    # With a head, no name is the encoder that it was made on.
    classify.set_defaults(model=None)

    embed = _verb(
        verbs,
        "embed",
        _embed,
        "write the embeddings of images to a NumPy file, float32, one row of length 1 each",
        "osler embed *.dcm --out embeddings.npy",
    )
    embed.add_argument(
        "inputs", nargs="+", metavar="IMAGE", help="a picture, a DICOM file or a whole slide"
    )
    embed.add_argument("--out", required=True, type=Path, metavar="FILE.npy")
    add_model_options(embed, "a MedSigLIP")
    add_slide_options(embed)

    info = _verb(verbs, "info", cli_info.run, cli_info.PURPOSE, cli_info.EXAMPLE)
    cli_info.add_options(info)

    quantize = _verb(
        verbs, "quantize", cli_quantize.run, cli_quantize.PURPOSE, cli_quantize.EXAMPLE
    )
    cli_quantize.add_options(quantize)

    look = _verb(verbs, "look", cli_look.run, cli_look.PURPOSE, cli_look.EXAMPLE)
    cli_look.add_options(look)

    record = _verb(verbs, "record", cli_record.run, cli_record.PURPOSE, cli_record.EXAMPLE)
    cli_record.add_options(record)

    deidentify = _verb(
        verbs, "deidentify", cli_deidentify.run, cli_deidentify.PURPOSE, cli_deidentify.EXAMPLE
    )
    cli_deidentify.add_options(deidentify)

    train = _verb(verbs, "train", cli_train.run, cli_train.PURPOSE, cli_train.EXAMPLE)
    cli_train.add_options(train)

    finetune = _verb(
        verbs, "finetune", cli_finetune.run, cli_finetune.PURPOSE, cli_finetune.EXAMPLE
    )
    cli_finetune.add_options(finetune)
    merge = _verb(
        verbs,
        "merge",
        cli_finetune.run_merge,
        cli_finetune.MERGE_PURPOSE,
        cli_finetune.MERGE_EXAMPLE,
    )
    cli_finetune.add_merge_options(merge)

    show = _verb(verbs, "show", cli_show.run, cli_show.PURPOSE, cli_show.EXAMPLE)
    cli_show.add_options(show)

    serve = _verb(
        verbs,
        "serve",
        _serve,
        "answer over HTTP, in the OpenAI protocol, until told to end",
        "osler serve --model nano --port 8000",
    )
    add_serve_options(serve)

    for verb in cli_archive.VERBS:
        verb.add_options(_verb(verbs, verb.name, verb.run, verb.purpose, verb.example))
    return parser


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], None],
    purpose: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=purpose, description=purpose, epilog=f"example: {example}")
    parser.set_defaults(run=run, usage_error=parser.error)
    return parser


def _classify(args: argparse.Namespace) -> None:
    labels = [label.strip() for label in (args.labels or "").split(",") if label.strip()]
    if (args.labels is None) == (args.head is None):
        args.usage_error("either --labels or --head is needed")
    if args.head is None and len(labels) < 2:
        args.usage_error("--labels needs two or more, separated by commas")
    classify: Callable[..., list[osler.Classification]]
    if args.head is None:
        encoder = osler.load_encoder(args.model or "nano", device=args.device, dtype=args.dtype)
        classify = partial(encoder.classify, labels=labels)
    else:
        from osler.tasks.head import load_classifier

        classifier = load_classifier(
            args.head, encoder=args.model, device=args.device, dtype=args.dtype
        )
        encoder, classify = classifier.encoder, classifier.classify
    with _progress(len(args.inputs)) as progress:
        results = classify(args.inputs, slides=slide_view(args), progress=progress)
    if args.json:
        print_json({"notice": encoder.notice, "results": [asdict(result) for result in results]})
        return
    width = max(len(result.source) for result in results)
    for result in results:
        ranked = sorted(result.probabilities.items(), key=lambda entry: -entry[1])
        shares = "   ".join(f"{label} {probability:.1%}" for label, probability in ranked)
        print(f"{result.source:{width}}   {shares}")
    print(f"\n{encoder.notice}")


def _embed(args: argparse.Namespace) -> None:
    import numpy as np

    check_out(args.out)
    encoder = osler.load_encoder(args.model, device=args.device, dtype=args.dtype)
    with _progress(len(args.inputs)) as progress:
        rows = encoder.embed_images(args.inputs, slides=slide_view(args), progress=progress)
    write_whole(args.out, lambda file: np.save(file, rows))
    if args.json:
        print_json({"out": str(args.out), "shape": list(rows.shape), "notice": encoder.notice})
    else:
        note(f"wrote {args.out}: float32 {rows.shape}. {encoder.notice}")


def _serve(args: argparse.Namespace) -> None:
    from osler.serving.command import serve

    serve(args)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    # Silent on short work, and where standard error is no terminal.
    with tqdm(total=total, unit="image", delay=2, disable=None) as bar:
        yield lambda done: bar.update(done - bar.n)
