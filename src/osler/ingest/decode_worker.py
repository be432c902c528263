"""The child process that parses and decodes: `python -m osler.ingest.decode_worker`.

It reads files' bytes from standard input and writes images or errors to standard output until its
input is closed. A crash here, or a kill, costs the reading process one file. What nobody foresaw
ends the worker as a crash does, so there is no catch-all.
"""

import logging
import os
import resource
import signal
import warnings

from osler.errors import InputError, UnsupportedError
from osler.ingest.decode import decode
from osler.ingest.limits import MAX_WORKER_BYTES
from osler.ingest.wire import receive, send_error, send_image

_STDIN, _STDOUT = 0, 1


def main() -> None:
    """Serve decoding requests until standard input is closed."""
    replies = _take_stdout()
    _limit_resources()
    # What the libraries say of a file may quote from it, and a patient's name would go to a log.
    warnings.simplefilter("ignore")
    logging.disable()
    while True:
        try:
            header, data = receive(_STDIN)
        except EOFError:
            return
        _answer(replies, data.tobytes(), header["source"])


def _answer(replies: int, data: bytes, source: str) -> None:
    try:
        image = decode(data, source)
    except MemoryError:
        error = UnsupportedError(f"{source}: decoding needs more than {MAX_WORKER_BYTES:,} bytes")
        send_error(replies, error)
    except InputError as error:
        send_error(replies, error)
    else:
        send_image(replies, image)


def _take_stdout() -> int:
    """Keep standard output for replies; whatever a codec prints goes nowhere."""
    replies = os.dup(_STDOUT)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)
    return replies


def _limit_resources() -> None:
    # The terminal's Ctrl-C is the reading process's to handle; it closes our input when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # No core dump: it would leave the file's content on disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MAX_WORKER_BYTES if hard == resource.RLIM_INFINITY else min(MAX_WORKER_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
