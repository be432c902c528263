"""What all methods of fine-tuning do with the folder that they write into."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from osler.errors import CheckpointError
from osler.tasks.adapter import RECORD
from osler.tasks.packed_folder import is_packed
from osler.training.run_log import write_whole

RUN = "run"

# Told the stage, how much of it is done, and how much it is.
Progress = Callable[[str, int, int], object]


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody hears of."""


def refuse_packed(folder: Path) -> None:
    """Raise for a folder of packed weights.

    Raises:
        CheckpointError: it is one.
    """
    if is_packed(folder):
        raise CheckpointError(
            f"{folder}: packed weights do not train; give the checkpoint that they were packed from"
        )


def base_name(name: str | os.PathLike[str]) -> str:
    """What to write down as a base model: a folder by its whole path, so that it is found again."""
    path = Path(name)
    return str(path.resolve()) if path.is_dir() else os.fspath(name)


def check_out(target: Path, *, resume: bool = False) -> None:
    """Refuse, before the work, a folder that cannot take its result.

    Args:
        target: new or empty; or, to resume, one that holds a run.
        resume: which of the two.

    Raises:
        CheckpointError: it is another.
    """
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target}: a file, not a folder")
    if resume:
        if not (target / RUN).is_dir() or (target / RECORD).exists():
            raise CheckpointError(f"{target}: holds no interrupted run to go on with")
    elif holds := sorted(path.name for path in target.iterdir()) if target.is_dir() else []:
        raise CheckpointError(f"{target}: not empty (it holds {holds[0]}); name a new folder")


def write_record(done: Any, target: Path) -> None:
    """Write the dataclass that says what became of a fine-tuning beside its result."""
    text = json.dumps(asdict(done), indent=2, ensure_ascii=False)
    write_whole(target / RECORD, f"{text}\n")
