"""Folders of packed models: which they are, and how a new one comes to be.

A packed folder holds `model.osler` in the place of weights, and all else that its checkpoint did:
`config.json`, the tokenizer, the processor's files; and `tokenizer.osler`, which is the tokenizer
once more, as the native engine maps it.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from osler.errors import CheckpointError
from osler.models.hf_config import CONFIG_FILE, GENERATION_FILE
from osler.native.bpe_table import TABLE_FILE
from osler.native.library import Library, library
from osler.native.packed_file import PACKED_FILE
from osler.tasks.checkpoint_extras import PROCESSOR_FILES

_STAGING = ".packing-"


def is_packed(folder: Path) -> bool:
    """Whether a model's folder holds packed weights."""
    return (folder / PACKED_FILE).is_file()


def native_library(what: str) -> Library:
    """The native engine.

    Args:
        what: needs it, to begin the message with.

    Raises:
        CheckpointError: this installation, or this processor, has none.
    """
    loaded = library()
    if loaded is None:
        raise CheckpointError(
            f"{what}: packed weights need the native engine, which is not available here; install "
            "Osler where there is a C compiler, or use the checkpoint that was packed"
        )
    return loaded


def check_out(folder: Path, needed_bytes: int) -> None:
    """Refuse, before the work, a folder that cannot become a packed one.

    Args:
        folder: to be written.
        needed_bytes: on its disk.

    Raises:
        CheckpointError: it is a file, or holds something else, or the disk is too full.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: a file, not a folder")
    if folder.is_dir() and not is_packed(folder):
        others = [path.name for path in folder.iterdir() if not path.name.startswith(_STAGING)]
        if others:
            raise CheckpointError(
                f"{folder}: not empty (it holds {min(others)}); name a new folder"
            )
    check_disk(folder, needed_bytes)


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Refuse a folder, which may not be there yet, whose disk is too full.

    Raises:
        CheckpointError: it has less room than needed.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < needed_bytes:
        raise CheckpointError(
            f"{folder}: needs {needed_bytes / 1e9:.1f} GB, and its disk has {free_bytes / 1e9:.1f}"
        )


@contextmanager
def new_packed_folder(folder: Path) -> Iterator[Path]:
    """Make a packed folder whole or not at all; one that is there is replaced at the end.

    Yields:
        An empty folder to write the files into.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_STAGING) as name:
            staging = Path(name)
            yield staging
            # Without its configuration, a folder is no model.
            for stale in (CONFIG_FILE, PACKED_FILE, GENERATION_FILE, TABLE_FILE, *PROCESSOR_FILES):
                (folder / stale).unlink(missing_ok=True)
            for path in sorted(staging.iterdir(), key=lambda path: path.name == CONFIG_FILE):
                path.replace(folder / path.name)
    except OSError as error:
        reason = error.strerror or "cannot be written"
        raise CheckpointError(f"{folder}: cannot be written ({reason})") from error


def copy_descriptions(source: Path, target: Path, changes: Mapping[str, Any]) -> None:
    """Copy all that a checkpoint's folder holds beside its weights.

    Args:
        source: the checkpoint.
        target: the new folder.
        changes: fields of `config.json` that the source leaves to its own name or defaults.
    """
    for name in (GENERATION_FILE, *PROCESSOR_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    values = json.loads((source / CONFIG_FILE).read_bytes()) | dict(changes)
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    (target / CONFIG_FILE).write_text(text, encoding="utf-8")
