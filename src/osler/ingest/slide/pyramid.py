"""A pyramid in DICOM, whose levels are files, as one slide."""

from collections.abc import Sequence
from dataclasses import replace

from osler.ingest.facts import FileFacts
from osler.ingest.file_part import FilePart
from osler.ingest.stack import FrameRef

# What rounding at each halving makes of a level's shape.
_SAME_SHAPE = 0.02


def whole_slide(levels: Sequence[tuple[FilePart, FileFacts]]) -> FrameRef:
    """Put the files of one series together: by size into levels, the largest first.

    Args:
        levels: one or more files, each with `slide`.

    Returns:
        The slide as one frame, of the file with its largest level.
    """
    by_size = sorted(levels, key=lambda level: (-level[1].columns, level[0].name))
    part, largest = by_size[0]
    files: dict[tuple[int, int], tuple[str, ...]] = {}
    for _, facts in by_size:
        size = (facts.columns, facts.rows)
        if facts.slide is not None and is_same_shape(size, (largest.columns, largest.rows)):
            files[size] = files.get(size, ()) + facts.slide.files[0]
    assert largest.slide is not None
    slide = replace(largest.slide, files=tuple(files.values()))
    return FrameRef(part, 0, replace(largest, slide=slide))


def is_same_shape(size: tuple[int, int], base: tuple[int, int]) -> bool:
    """Whether a level may be a smaller copy of the base, by how wide and how high it is.

    >>> is_same_shape((250, 125), (1001, 500)), is_same_shape((300, 300), (1001, 500))
    (True, False)
    """
    expected = size[1] * base[0] / base[1]
    return abs(size[0] - expected) <= max(2 * base[0] / base[1] + 2, _SAME_SHAPE * expected)
