"""What the decoding worker does when it is asked about a slide."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from osler.errors import InputError
from osler.ingest.slide.describe import describe_slide
from osler.ingest.slide.opened import OpenedSlide, open_slide
from osler.ingest.slide.regions import patches, surveys
from osler.ingest.wire import send, send_image, send_record


def work_on_slide(replies: int, header: dict[str, Any], source: str) -> None:
    """Answer a request for a description, for patches or for a survey.

    Raises:
        InputError: a slide that cannot be read; the message names `source`.
    """
    if header["task"] == "slide":
        send_record(replies, describe_slide(header["path"], source))
        return
    with _opened(header, source) as slide:
        boxes, side_px = header["boxes"], header["side_px"]
        if header["task"] == "patches":
            for image in patches(slide, boxes, side_px, source):
                send_image(replies, image)
        else:
            for counts, small in surveys(slide, boxes, side_px, header["small_px"]):
                send(replies, {}, counts, small)


@contextmanager
def _opened(header: dict[str, Any], source: str) -> Iterator[OpenedSlide]:
    files = tuple(tuple(level) for level in header["files"])
    try:
        yield open_slide(header["reader"], files)
    except InputError as error:
        raise type(error)(f"{source}: {error}") from None
