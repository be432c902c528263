"""Whole slides where single images are expected: as their patches."""

import os
from collections.abc import Sequence
from pathlib import Path

from osler.ingest.file_part import FilePart, printable
from osler.ingest.image import Image
from osler.ingest.limits import HEAD_BYTES
from osler.ingest.scan import scan
from osler.ingest.series import Study
from osler.ingest.slide.recognise import may_be_slide
from osler.preprocess.slices import read_shown, shown_of
from osler.preprocess.slides import SlideView, lay_out
from osler.preprocess.sources import ImageSource


def find_slide(image: ImageSource) -> Sequence[Study] | None:
    """A whole slide, where that is what a path holds.

    Args:
        image: as images are handed in.

    Returns:
        A study of this slide alone; None for everything else.

    Raises:
        InputError: a slide that cannot be read.
    """
    if not isinstance(image, str | os.PathLike):
        return None
    path, name = Path(image), printable(os.fspath(image))
    if not path.is_dir() and not may_be_slide(name, FilePart(path, name).read(HEAD_BYTES)):
        return None
    studies = scan(image).studies
    kinds = [series.kind for study in studies for series in study.series]
    return studies if kinds == ["slide"] else None


def slide_patches(studies: Sequence[Study], view: SlideView) -> list[Image]:
    """The patches of what `find_slide` found, in their order.

    Raises:
        InputError: a slide that is damaged, or of which there is no such magnification.
    """
    (study,) = lay_out(studies, view)
    return read_shown(shown_of(study.series[0], view.max_patches))
