"""The child process that parses DICOM files: `python -m osler.archive.worker`.

It is to `osler.archive` what `osler.ingest.decode_worker` is to reading images.
"""

from pathlib import Path
from typing import Any

from osler.archive.head import goes_to_its_end, parse_instance
from osler.archive.results.attributes import parse_attributes
from osler.errors import UnreadableFileError
from osler.ingest.decode_worker import serve
from osler.ingest.wire import send_record


def work(replies: int, header: dict[str, Any], data: bytes, source: str) -> None:
    """Do what is asked of one file, which is read by its path, and write the reply.

    Raises:
        InputError: what is wrong with the file.
    """
    path = Path(header["path"])
    try:
        match header["task"]:
            case "instance":
                file = parse_instance(path, source)
                about = (file.transfer_syntax, file.size_bytes, file.data_set_offset_bytes)
                send_record(replies, (file.instance, *about))
            case "whole":
                send_record(replies, goes_to_its_end(path))
            case "attributes":
                send_record(replies, parse_attributes(path, source))
    except OSError as error:
        raise UnreadableFileError(f"{source}: cannot be read ({error.strerror})") from None


if __name__ == "__main__":
    serve(work)
