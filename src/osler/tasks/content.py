"""What a user hands in beside a question, as the items of a message."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from osler.errors import PromptError
from osler.ingest.scan import Scan, scan
from osler.ingest.series import Study
from osler.preprocess.slices import MAX_SLICES, Shown, read_shown
from osler.preprocess.slides import AT_10X, SlideView, lay_out
from osler.preprocess.sources import ImageSource
from osler.preprocess.study_content import (
    Exhibit,
    add_text,
    content_of,
    exhibits,
    name_of,
    several_patients,
)

# 256 tokens each fill the longest context, 131,072; more need not be decoded to be refused.
_MOST_IMAGES = 512

Progress = Callable[[str, int, int], object]  # stage, done, of how many


@dataclass(frozen=True)
class Content:
    """Images in the order in which a model sees them.

    Attributes:
        items: of a message: headings, images, labels.
        notes: what was left out and what is odd, a line each.
        slides: the whole slides among them, with the patches that are seen.
    """

    items: list[dict[str, Any]]
    notes: list[str]
    slides: list[Shown] = field(default_factory=list)


def read_content(
    images: Sequence[ImageSource],
    *,
    max_slices: int = MAX_SLICES,
    slides: SlideView = AT_10X,
    progress: Progress | None = None,
) -> Content:
    """Read images, volumes, whole slides and studies.

    Args:
        images: paths as `scan` takes them; what is in memory already stays as it is.
        max_slices: the most slices and frames that neighbouring paths have together.
        slides: how whole slides are looked at.
        progress: called while files are looked at and read.

    Raises:
        InputError: an image that cannot be read.
        PromptError: not a list, a `max_slices` below 1, or more images than there can be room for.
    """
    if isinstance(images, str | os.PathLike):
        raise PromptError("images is a list of images: images=[path]")
    if max_slices < 1:
        raise PromptError("max_slices must be at least 1")
    items: list[dict[str, Any]] = []
    notes: list[str] = []
    seen: list[Shown] = []
    for are_paths, run in groupby(images, lambda image: isinstance(image, str | os.PathLike)):
        if not are_paths:
            items += [{"type": "image", "image": image} for image in run]
            continue
        scans = []
        for path in run:
            assert isinstance(path, str | os.PathLike)
            scans.append(scan(path, progress=stage(progress, "looking")))
        content = content_of_scans(scans, max_slices=max_slices, slides=slides, progress=progress)
        items += content.items
        notes += content.notes
        seen += content.slides
    return Content(items, notes, seen)


def content_of_scans(
    scans: Sequence[Scan],
    *,
    max_slices: int = MAX_SLICES,
    slides: SlideView = AT_10X,
    names: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Content:
    """Read what a model sees of what was found.

    Args:
        scans: of the paths that were handed in.
        max_slices: as `read_content` takes it.
        slides: as `read_content` takes it.
        names: what a record calls studies, by their UIDs.
        progress: called while files are read.

    Raises:
        InputError: an image that cannot be read.
        PromptError: more images than there can be room for.
    """
    found = [study for one in scans for study in one.studies]
    studies = lay_out(found, slides, progress=stage(progress, "looking for tissue"))
    notes = [f"left out: {count} x {why}" for one in scans for why, count in one.left_out.items()]
    chosen = exhibits(studies, max_slices, names, max_patches=slides.max_patches)
    count = sum(len(exhibit.shown.frames) for exhibit in chosen)
    if count > _MOST_IMAGES:
        raise PromptError(
            f"{count:,} images are more than the {_MOST_IMAGES} that any MedGemma has room for"
        )
    notes += _notes(studies, chosen)
    items = content_of(chosen, lambda shown: _read(shown, progress))
    seen = [exhibit.shown for exhibit in chosen if exhibit.shown.series.kind == "slide"]
    return Content(items, notes, seen)


def question_messages(
    question: str, images: Sequence[Mapping[str, Any]], system: str | None = None
) -> list[dict[str, Any]]:
    """Messages that ask one question.

    Args:
        question: what to ask.
        images: items of content that stand before it, as `read_content` gives them.
        system: a system message.
    """
    content = [dict(item) for item in images]
    add_text(content, question.strip())
    user = {"role": "user", "content": content}
    return [user] if system is None else [{"role": "system", "content": system}, user]


def stage(progress: Progress | None, name: str) -> Callable[[int, int], object] | None:
    """One stage of a progress, as the rooms below report it."""
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)


def _read(shown: Shown, progress: Progress | None) -> Sequence[Any]:
    return read_shown(shown, progress=stage(progress, "reading"))


def _notes(studies: Sequence[Study], chosen: Sequence[Exhibit]) -> list[str]:
    notes = []
    if several_patients(studies):
        notes.append("these are images of several patients")
    seen = {id(exhibit.shown.series) for exhibit in chosen}
    aside = sum(id(series) not in seen for study in studies for series in study.series)
    if aside:
        notes.append(f"left out: {aside} x scouts or screens")
    for exhibit in chosen:
        shown, name = exhibit.shown, name_of(exhibit.shown.series)
        if len(shown.frames) < len(shown.series.frames):
            notes.append(f"{name}: {len(shown.frames)} of {len(shown.series.frames)} are seen")
        notes += [f"{name}: {finding.text}" for finding in shown.series.findings]
    return notes
