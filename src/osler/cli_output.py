"""What the verbs share: bars of progress, files that are whole or not there, notes, JSON."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from osler.errors import OslerError


def check_out(out: Path) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        OslerError: no such folder to write into, or a folder of that name.
    """
    if not out.parent.is_dir():
        raise OslerError(f"{out}: there is no folder {out.parent}")
    if out.is_dir():
        raise OslerError(f"{out}: a folder, not a file")


def write_whole(out: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write beside the target and rename, so that no half file ever bears its name."""
    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with part.open("xb") as file:
            write(file)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def note(text: str) -> None:
    """Say something that is not the result."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a result for programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


class Progress:
    """A bar for each stage, where standard error is a terminal and the stage takes a while."""

    def __init__(self) -> None:
        self._bars = ExitStack()
        self._stage = ""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; a new name begins a new bar."""
        from tqdm import tqdm

        if stage != self._stage:
            self._bars.close()
            bar = tqdm(total=total, desc=stage, unit_scale=True, delay=1, disable=None)
            self._stage, self._bar = stage, self._bars.enter_context(bar)
        self._bar.update(done - self._bar.n)
