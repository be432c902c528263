"""Regions of a slide for whoever asks: they are read in child processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osler.ingest.facts import Box, SlideFacts
from osler.ingest.file_part import FilePart
from osler.ingest.image import Image
from osler.ingest.slide.tissue import LEVELS
from osler.ingest.stack import FrameRef
from osler.ingest.wire import receive_image, receive_payload
from osler.ingest.worker_pool import WORKERS, decoding_workers

Progress = Callable[[int, int], object]  # done, of how many
# What one worker reads in one go; the others take the next.
_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class PatchRef(FrameRef):
    """One square of a slide.

    Attributes:
        box: where it lies, in pixels of the largest level.
        cell: its (row, column) on the slide's grid.
    """

    box: Box
    cell: tuple[int, int]


def read_patches(
    patches: Sequence[PatchRef], side_px: int, *, progress: Progress | None = None
) -> list[Image]:
    """Read squares of one or more slides.

    Args:
        patches: in the order wanted.
        side_px: what each becomes.
        progress: called with the patches read so far and their number.

    Returns:
        uint8 RGB (side, side, 3) each, in sRGB.

    Raises:
        InputError: a slide that is damaged.
    """
    pieces = [
        list(run)[start : start + _AT_ONCE]
        for _, group in groupby(patches, key=lambda patch: id(patch.part))
        for run in [list(group)]
        for start in range(0, len(run), _AT_ONCE)
    ]

    def read(piece: Sequence[PatchRef]) -> list[Image]:
        header = _header("patches", piece[0].part, piece[0].file.slide, side_px)
        header["boxes"] = [patch.box for patch in piece]
        return decoding_workers.ask(header, b"", receive_image, replies=len(piece))

    images: list[Image] = []
    with ThreadPoolExecutor(WORKERS) as threads:
        for some in threads.map(read, pieces):
            images += some
            if progress is not None:
                progress(len(images), len(patches))
    return images


def survey(
    part: FilePart,
    slide: SlideFacts,
    rows: Sequence[Sequence[Box]],
    *,
    side_px: int,
    small_px: int,
    progress: Progress | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Look at all squares of a grid once, for colour and for a picture of the whole.

    Args:
        part: where the slide is.
        slide: what it says of itself.
        rows: of the grid, R of C squares.
        side_px: the size in which colour is measured.
        small_px: s, the side of each square in the picture.
        progress: called with the squares looked at so far and their number.

    Returns:
        What `tissue.saturations` counts for each (R, C, 256), and RGB (R * s, C * s, 3).

    Raises:
        InputError: a slide that is damaged.
    """
    receive = partial(_receive_survey, small_px=small_px)

    def look(row: Sequence[Box]) -> list[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
        header = _header("survey", part, slide, side_px)
        header |= {"boxes": list(row), "small_px": small_px}
        return decoding_workers.ask(header, b"", receive, replies=len(row))

    counts: list[NDArray[np.int32]] = []
    pictures: list[NDArray[np.uint8]] = []
    with ThreadPoolExecutor(WORKERS) as threads:
        for row in threads.map(look, rows):
            counts.append(np.stack([count for count, _ in row]))
            pictures.append(np.concatenate([small for _, small in row], axis=1))
            if progress is not None:
                progress(len(counts) * len(rows[0]), len(rows) * len(rows[0]))
    return np.stack(counts), np.concatenate(pictures)


def _header(task: str, part: FilePart, slide: SlideFacts | None, side_px: int) -> dict[str, Any]:
    assert slide is not None  # whoever makes patches has seen to that
    return {
        "task": task,
        "source": part.name,
        "reader": slide.reader,
        "files": slide.files,
        "side_px": side_px,
    }


def _receive_survey(pipe: int, small_px: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    payload = receive_payload(pipe)
    counts_bytes = LEVELS * np.dtype(np.int32).itemsize
    if len(payload) != counts_bytes + 3 * small_px**2:
        raise ValueError("a reply of another length")
    counts = np.frombuffer(payload[:counts_bytes], np.int32)
    if counts.min() < 0:
        raise ValueError("a reply with less than nothing")
    small = np.frombuffer(payload[counts_bytes:], np.uint8)
    return counts, small.reshape(small_px, small_px, 3)
