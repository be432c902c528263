"""A patient's case: a record and images, handed in together, and an answer that names its sources.

The record stands first, then the images, then the question. Lines of the record end with the name
of their source in brackets, and so do the headings of those studies that the record knows.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osler.errors import PromptError
from osler.ingest.fhir.detect import is_meant_as_record, is_record
from osler.ingest.fhir.read import read_record
from osler.ingest.fhir.records import LeftOut, Timeline
from osler.ingest.file_part import FilePart, printable
from osler.ingest.scan import Scan, files_in, require_images, scan, scan_files
from osler.preprocess.record.budget import Dropped
from osler.preprocess.record.lines import Citations
from osler.preprocess.record.rendering import Rendering, Style, render
from osler.preprocess.slices import MAX_SLICES
from osler.preprocess.slides import AT_10X, SlideView
from osler.preprocess.study_content import add_text
from osler.tasks.answer import Answer
from osler.tasks.content import Content, Progress, content_of_scans, question_messages, stage
from osler.tasks.record import ImageJoin, join_images, token_counter

if TYPE_CHECKING:
    from osler.tasks.chat_model import ChatModel

# What an engine elsewhere gets of a record, as it does not say how much it has room for.
REMOTE_BUDGET = 8192

_INSTRUCTION = (
    "The patient's record follows. Each line ends with its source in brackets. Name in brackets "
    "the sources that your answer rests on."
)
_JOINT_TOKENS = 16  # where texts meet, their tokens are others than each text's own
_NAMED = re.compile(r"\[([^\[\]\s:]+)(?::[0-9]+)?\]")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A record and images that were read.

    Attributes:
        content: the images, and what is odd about them.
        timeline: the record; None without one.
        join: which images belong to it; None without a record or without images.
    """

    content: Content
    timeline: Timeline | None = None
    join: ImageJoin | None = None


@dataclass(frozen=True, kw_only=True)
class RecordUse:
    """What a model was given of a record, and what its answer names of it.

    Attributes:
        sources: the resources of the lines that it was given, as "Observation/123".
        cited: those of them that its answer names.
        unknown: what its answer names as a source and is none.
        dropped: what there was no room for.
        left_out: resources that no timeline takes.
        images: which images belong to the record.
    """

    sources: tuple[str, ...]
    cited: tuple[str, ...]
    unknown: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    left_out: tuple[LeftOut, ...]
    images: ImageJoin | None


def read_case(
    paths: Sequence[str | os.PathLike[str]],
    *,
    patient: str | None = None,
    max_slices: int = MAX_SLICES,
    slides: SlideView = AT_10X,
    progress: Progress | None = None,
) -> Case:
    """Read records and images, which may lie in one folder.

    Args:
        paths: of records as `read_record` takes them, of images as `scan` does, or folders of both.
        patient: the id of whom to read, where the record has several.
        max_slices: as `ChatModel.ask` takes it.
        slides: as `ChatModel.ask` takes it.
        progress: called while files are looked at and read.

    Raises:
        InputError: a file that cannot be read, or a record of several patients.
        PromptError: more images than there can be room for.
    """
    records: list[str | os.PathLike[str]] = []
    scans: list[Scan] = []
    for path in paths:
        if os.path.isdir(path):
            in_folder, found = _of_folder(path, progress)
            records += in_folder
            scans.append(found)
        elif is_meant_as_record(path):
            records.append(path)
        else:
            scans.append(scan(path, progress=stage(progress, "looking")))
    if not records:
        return Case(
            content=content_of_scans(scans, max_slices=max_slices, slides=slides, progress=progress)
        )
    timeline = read_record(*records, patient=patient)
    studies = [study for found in scans for study in found.studies]
    join = join_images(timeline, studies) if studies else None
    name_of = Citations(timeline, short=True).name
    names = {} if join is None else {one.study_uid: name_of(one.source) for one in join.joined}
    content = content_of_scans(
        scans, max_slices=max_slices, slides=slides, names=names, progress=progress
    )
    return Case(content=content, timeline=timeline, join=join)


def case_messages(
    case: Case,
    question: str,
    model: "ChatModel",
    *,
    system: str | None = None,
    style: Style = "problems",
    budget: int | None = None,
    max_new_tokens: int = 200,
) -> tuple[list[dict[str, Any]], Rendering | None]:
    """Messages that ask one question about a case.

    Args:
        case: what `read_case` gave.
        question: what to ask.
        model: who is to answer; the record gets the room that all else leaves in its context.
        system: a system message.
        style: how the record is written.
        budget: tokens that the record may have at most; None for all that there is room for.
        max_new_tokens: room to keep for the answer.

    Returns:
        The messages, and what became of the record.

    Raises:
        PromptError: there is no room for even the first lines of the record.
    """
    if case.timeline is None:
        return question_messages(question, case.content.items, system), None
    bare = _messages(case, "", question, system)
    room, count = _room(model, bare, budget, max_new_tokens)
    try:
        rendering = render(case.timeline, style, short_ids=True, budget=room, count=count)
    except PromptError:
        raise PromptError(
            f"the record has room for {room:,} tokens beside images, question and answer, and its "
            "first lines take more"
        ) from None
    return _messages(case, rendering.text, question, system), rendering


def record_use(case: Case, rendering: Rendering, answer: Answer) -> RecordUse:
    """What a model was given of a case's record, and what its answer names of it.

    Args:
        case: what was asked about.
        rendering: what `case_messages` gave.
        answer: to these messages.
    """
    whole = {source: source for source in rendering.sources.values()}
    source_of = {**whole, **rendering.sources}
    given = dict.fromkeys(_NAMED.findall(rendering.text))
    named = dict.fromkeys(_NAMED.findall(answer.text))
    return RecordUse(
        sources=tuple(source_of[name] for name in given if name in source_of),
        cited=tuple(dict.fromkeys(source_of[name] for name in named if name in source_of)),
        unknown=tuple(name for name in named if "/" in name and name not in source_of),
        dropped=rendering.dropped,
        left_out=() if case.timeline is None else case.timeline.left_out,
        images=case.join,
    )


def cited_lines(rendering: Rendering, use: RecordUse) -> list[str]:
    """The lines of the record that an answer names, for whoever checks it."""
    return [
        line.strip()
        for line in rendering.text.splitlines()
        if (names := _NAMED.findall(line)) and rendering.sources.get(names[-1]) in use.cited
    ]


def _of_folder(
    folder: str | os.PathLike[str], progress: Progress | None
) -> tuple[list[Path], Scan]:
    """The records of a folder, and the images among its other files."""
    records: list[Path] = []
    others: list[FilePart] = []
    for part in files_in(folder):
        if is_record(part.path):
            records.append(part.path)
        else:
            others.append(part)
    found = scan_files(others, progress=stage(progress, "looking"))
    if not records:
        name = printable(os.fspath(folder))
        require_images(found, f"{name}: no images and no record in this folder")
    return records, found


def _messages(case: Case, record: str, question: str, system: str | None) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    add_text(content, f"{_INSTRUCTION}\n\n{record}")
    for item in case.content.items:
        if item["type"] == "text":
            add_text(content, item["text"])
        else:
            content.append(item)
    return question_messages(question, content, system)


def _room(
    model: "ChatModel", bare: Sequence[Mapping[str, Any]], budget: int | None, max_new_tokens: int
) -> tuple[int, Callable[[str], int]]:
    """How many tokens the record may have, and how they are counted."""
    from osler.tasks.assistant import Assistant  # torch, which nobody waits for to read a file

    if not isinstance(model, Assistant):
        # The nano's vocabulary is small: what it counts is more than any MedGemma does.
        return budget or REMOTE_BUDGET, token_counter()
    taken = model.processor.length(bare) + max_new_tokens + _JOINT_TOKENS
    room = max(model.engine.context_tokens - taken, 0)
    tokenizer = model.processor.tokenizer
    return min(room, budget or room), lambda text: len(tokenizer.spell(text))
