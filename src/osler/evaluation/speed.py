"""Models as fast as the machine runs them: packed for the native engine where that is there."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import osler
from osler.errors import CheckpointError
from osler.native.library import library
from osler.tasks.assistant import Assistant
from osler.tasks.encoder import ImageTextEncoder
from osler.tasks.locate import Family, locate
from osler.tasks.packed_folder import is_packed
from osler.tasks.quantize import quantize


@contextmanager
def fast_encoder(name: str) -> Iterator[ImageTextEncoder]:
    """A MedSigLIP by any name or folder, its weights in bfloat16 (packed ones as they are).

    Raises:
        OslerError: no such model, or one that cannot be loaded.
    """
    with _packed(name, "medsiglip") as folder:
        yield osler.load_encoder(folder)


@contextmanager
def fast_assistant(name: str) -> Iterator[Assistant]:
    """A MedGemma by any name or folder, its weights in bfloat16 (packed ones as they are).

    Raises:
        OslerError: no such model, or one that cannot be loaded.
    """
    with _packed(name, "medgemma") as folder:
        yield osler.load(folder)


@contextmanager
def _packed(name: str, family: Family) -> Iterator[Path]:
    folder = locate(name, family)
    if is_packed(folder) or library() is None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        packed = Path(place) / "packed"
        try:
            quantize(folder, packed, to="bf16")
        except CheckpointError:  # of a form that the native engine does not run; torch may
            packed = folder
        yield packed
