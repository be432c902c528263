"""Proves each phase of the recipe by a measured gain, and writes docs/recipe.md.

    python -m bench.recipe --data DIR --run RUN --out OUT [--only encoder ...] [--quick]

RUN is the folder of a finished `osler train nano`; it is read, and images that it decoded are used
again. OUT gets what the proofs train, and recipe.json with what they found: a proof that is there
is not run again, and one that was stopped goes on. Only validation parts are measured on.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import osler
from bench.recipe import distillation, encoder, finetuning, pretraining, reinforcement
from bench.recipe.document import NOT_YET, markdown, put
from bench.recipe.plots import draw
from bench.recipe.record import Record
from bench.recipe.setting import Setting
from osler.errors import InputError, OslerError
from osler.training.run_log import write_whole

PROOFS: dict[str, Callable[[Setting], Record]] = {
    "encoder": encoder.prove,
    "pretraining": pretraining.prove,
    "distillation": distillation.prove,
    "reinforcement": reinforcement.prove,
    "finetuning": finetuning.prove,
}
FOUND = "recipe.json"
DOCUMENT = Path(__file__).parents[2] / "docs" / "recipe.md"
PICTURES = "recipe"


def main(argv: Sequence[str] | None = None) -> int:
    """Prove what is asked for and not there, write the document, and return the exit code."""
    given = _arguments(argv)
    setting = Setting(data=given.data, run=given.run, out=given.out, quick=given.quick)
    try:
        setting.out.mkdir(parents=True, exist_ok=True)
        found = _found(setting)
        document = given.doc or (setting.out / DOCUMENT.name if given.quick else DOCUMENT)
        write_document(document, found["proofs"])
        for place, name in enumerate(given.only, start=1):
            if name in found["proofs"]:
                sys.stderr.write(f"{name}: is there\n")
                continue
            sys.stderr.write(f"{name}: proof {place} of {len(given.only)}\n")
            start = time.monotonic()
            record = PROOFS[name](setting)
            seconds = round(time.monotonic() - start, 1)
            found["proofs"][name] = {**record, "osler": osler.__version__, "seconds": seconds}
            text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
            write_whole(setting.out / FOUND, f"{text}\n")
            write_document(document, found["proofs"])
    except OslerError as error:
        sys.stderr.write(f"osler: {error}\n")
        return 1
    sys.stderr.write(f"{document}: written\n")
    return 0


def write_document(document: Path, proofs: dict[str, Record]) -> None:
    """Draw all pictures, and rewrite the figures; a document that is not there begins as ours."""
    if not document.exists():
        write_whole(document, DOCUMENT.read_text(encoding="utf-8"))
    for name in PROOFS:
        record = proofs.get(name)
        text = NOT_YET
        if record is not None:
            for plot in record["plots"]:
                draw(plot, document.parent / PICTURES)
            text = markdown(name, record, PICTURES)
        put(document, name, text)


def _found(setting: Setting) -> dict[str, Any]:
    """What earlier calls found.

    Raises:
        InputError: the folder is of the other kind, quick or not.
    """
    path = setting.out / FOUND
    if not path.exists():
        write_whole(path, json.dumps({"quick": setting.quick, "proofs": {}}) + "\n")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["quick"] != setting.quick:
        kind = "quick figures" if found["quick"] else "full figures"
        raise InputError(f"{path}: holds {kind}; choose another folder")
    return found


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.recipe", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data pack")
    parser.add_argument("--run", type=Path, required=True, help="folder of `osler train nano`")
    parser.add_argument("--out", type=Path, required=True, help="what is trained and found")
    parser.add_argument("--only", nargs="+", choices=PROOFS, default=list(PROOFS))
    parser.add_argument(
        "--doc", type=Path, metavar="FILE", help="the document (default: docs/recipe.md)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few steps on a few images, and a document of its own in OUT; no real figures",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
