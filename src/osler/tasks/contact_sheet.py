"""One picture of all that is under a path, as a model would see it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps
from numpy.typing import NDArray

from osler.errors import InputError
from osler.ingest.image import Image
from osler.preprocess.render import render
from osler.preprocess.slices import Shown, read_shown
from osler.tasks.content import Progress, stage
from osler.tasks.look import UNREADABLE, Look, SeriesLook, headline
from osler.tasks.slide_map import draw_map

_CELL_PX = 160
_GAP_PX = 8
_LINE_PX = 18
_COLUMNS = 8
_MAP_WIDTH_PX, _MAP_HEIGHT_PX = _COLUMNS * (_CELL_PX + _GAP_PX) - _GAP_PX, 640
_BACKGROUND = (24, 24, 28)
_TEXT = (235, 235, 235)
_WARNING = (255, 190, 90)


def contact_sheet(
    look: Look, *, version: str = "1.5", progress: Progress | None = None
) -> NDArray[np.uint8]:
    """Draw a strip of up to eight images for each series, under a line that says what it is.

    Above those of a whole slide is all of it, with the patches drawn.

    The line holds codes and figures only. What is written in the pixels stays there, and what
    cannot be decoded has a line that says so.

    Args:
        look: what is to be drawn.
        version: MedGemma's, whose windows colour the CT.
        progress: called while images are read.

    Returns:
        uint8 RGB (H, W, 3).
    """
    strips = [
        _strip(number, row, shown, version, progress)
        for number, (row, shown) in enumerate(zip(look.series, look.shown, strict=True), start=1)
    ]
    return np.concatenate(strips)


def _strip(
    number: int, row: SeriesLook, shown: Shown, version: str, progress: Progress | None
) -> NDArray[np.uint8]:
    findings = list(row.findings)
    chosen = _some(shown)
    readable, images = _read(chosen, progress)
    if len(readable.frames) < len(chosen.frames):
        findings = list(dict.fromkeys([*findings, UNREADABLE]))
    lines = [finding.text for finding in findings]
    head = _GAP_PX + _LINE_PX * (1 + len(lines)) + _GAP_PX
    overview = None
    if shown.series.kind == "slide":
        overview = PIL.Image.fromarray(draw_map([shown]))
        overview = PIL.ImageOps.contain(overview, (_MAP_WIDTH_PX, _MAP_HEIGHT_PX))
    top = head if overview is None else head + overview.height + _GAP_PX
    width = _GAP_PX + _COLUMNS * (_CELL_PX + _GAP_PX)
    labels = _labels(shown, readable, row)
    foot = _LINE_PX + _GAP_PX if any(labels) else _GAP_PX
    strip = PIL.Image.new("RGB", (width, top + _CELL_PX + foot), _BACKGROUND)
    draw = PIL.ImageDraw.Draw(strip)
    font = PIL.ImageFont.load_default(14)
    draw.text((_GAP_PX, _GAP_PX), f"{number}  {headline(row)}", _TEXT, font)
    for line, text in enumerate(lines, start=1):
        draw.text((_GAP_PX + 20, _GAP_PX + line * _LINE_PX), f"! {text}", _WARNING, font)
    if overview is not None:
        strip.paste(overview, (_GAP_PX, head))
    for column, (image, label) in enumerate(zip(images, labels, strict=True)):
        picture = PIL.Image.fromarray(render(image, medgemma_version=version))
        picture = PIL.ImageOps.contain(picture, (_CELL_PX, _CELL_PX))
        left = _GAP_PX + column * (_CELL_PX + _GAP_PX)
        place = (
            left + (_CELL_PX - picture.width) // 2,
            top + (_CELL_PX - picture.height) // 2,
        )
        strip.paste(picture, place)
        draw.text((left, top + _CELL_PX + 2), label, _TEXT, font)
    return np.asarray(strip)


def _some(shown: Shown) -> Shown:
    """Evenly, the first and the last included, which shows where a scan begins and ends."""
    count = len(shown.frames)
    if count <= _COLUMNS:
        return shown
    places = np.linspace(0, count - 1, _COLUMNS).round().astype(int)
    return replace(shown, frames=tuple(shown.frames[place] for place in places))


def _read(chosen: Shown, progress: Progress | None) -> tuple[Shown, list[Image]]:
    """The frames that can be decoded; single images each for itself, where one cannot."""
    try:
        return chosen, read_shown(chosen, progress=stage(progress, "drawing"))
    except InputError:
        if chosen.series.kind != "images" or len(chosen.frames) < 2:
            return replace(chosen, frames=()), []
    each = [_read(replace(chosen, frames=(frame,)), progress) for frame in chosen.frames]
    frames = tuple(frame for one, _ in each for frame in one.frames)
    return replace(chosen, frames=frames), [image for _, images in each for image in images]


def _labels(shown: Shown, drawn: Shown, row: SeriesLook) -> Sequence[str]:
    """What stands under each picture: its place, or its size where single images differ in it."""
    if row.kind == "images":
        sizes = [f"{frame.file.columns} x {frame.file.rows}" for frame in drawn.frames]
        return sizes if row.sizes_differ else [""] * len(sizes)
    places = {id(frame): place for place, frame in enumerate(shown.frames)}
    return [shown.labels[places[id(frame)]].capitalize() for frame in drawn.frames]
