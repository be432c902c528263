"""The child process that parses and decodes: `python -m osler.ingest.decode_worker`.

It reads files' bytes from standard input and writes images, records or errors to standard output
until its input is closed. A crash here, or a kill, costs the reading process one file. What nobody
foresaw ends the worker as a crash does, so there is no catch-all.
"""

import logging
import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from osler.errors import InputError, UnsupportedError
from osler.ingest.decode import decode, decode_frames, describe, frame_ranges
from osler.ingest.limits import MAX_WORKER_BYTES, worker_bytes
from osler.ingest.wire import receive, send, send_error, send_image, send_record
from osler.ingest.zip_file import inflate, list_members

_STDIN, _STDOUT = 0, 1


Work = Callable[[int, dict[str, Any], bytes, str], None]


def serve(work: Work) -> None:
    """Serve requests until standard input is closed.

    Args:
        work: does what a header asks of a file's bytes and writes the replies to a file descriptor;
            the file's name comes last.
    """
    replies = _take_stdout()
    limit_resources()
    # What the libraries say of a file may quote from it, and a patient's name would go to a log.
    warnings.simplefilter("ignore")
    logging.disable()
    while True:
        try:
            header, received = receive(_STDIN)
        except EOFError:
            return
        data = received.tobytes()
        del received  # or a large file would be here twice
        answer(replies, header, data, work)


def answer(replies: int, header: dict[str, Any], data: bytes, work: Work) -> None:
    """Do what is asked of one file, and write the replies or the error to a file descriptor."""
    source: str = header["source"]
    limit = worker_bytes(_input_bytes(header, data))
    try:
        with _memory(limit):
            work(replies, header, data, source)
    except MemoryError:
        send_error(replies, UnsupportedError(f"{source}: decoding needs more than {limit:,} bytes"))
    except InputError as error:
        send_error(replies, error)


def decoding_work(replies: int, header: dict[str, Any], data: bytes, source: str) -> None:
    """The work of this room."""
    inflated_bytes = header.get("inflated_bytes")
    if inflated_bytes is not None:
        data = inflate(data, inflated_bytes, source, whole=header["whole"])
    match header["task"]:
        case "decode":
            send_image(replies, decode(data, source))
        case "frames":
            for image in decode_frames(data, source, header["frames"]):
                send_image(replies, image)
        case "ranges":
            for low_high in frame_ranges(data, source, header["frames"]):
                send_record(replies, low_high)
        case "describe":
            send_record(replies, describe(data, source, whole=header["whole"]))
        case "list":
            send_record(replies, list_members(data, source))
        case "record":
            from osler.ingest.fhir.read import read_for

            send(replies, {}, read_for(header, data))
        case "slide" | "patches" | "survey":
            from osler.ingest.slide.work import work_on_slide

            work_on_slide(replies, header, source)


def _input_bytes(header: dict[str, Any], data: bytes) -> int:
    """How much there is to read; of what is read by its path nothing is among the data."""
    if "path" in header:
        try:
            return os.path.getsize(header["path"])
        except OSError:
            return 0
    size_bytes: int = header.get("size_bytes", len(data))
    return size_bytes


def _take_stdout() -> int:
    """Keep standard output for replies; whatever a codec prints goes nowhere."""
    replies = os.dup(_STDOUT)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)
    return replies


def limit_resources() -> None:
    """Take from this process what a decoder does not need."""
    # The terminal's Ctrl-C is the reading process's to handle; it closes our input when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # No core dump: it would leave the file's content on disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MAX_WORKER_BYTES if hard == resource.RLIM_INFINITY else min(MAX_WORKER_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@contextmanager
def _memory(limit_bytes: int) -> Iterator[None]:
    """Limit the memory while one file is worked on."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min(limit_bytes, before), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


if __name__ == "__main__":
    serve(decoding_work)
