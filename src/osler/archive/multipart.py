"""Multipart bodies with DICOM files in them, as DICOMweb sends them (RFC 2387, PS3.18 8.7.1).

What comes in goes to disk as it comes, what goes out comes from there: an instance of a whole slide
has gigabytes.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from osler.archive.instance import InstanceFile

DICOM = "application/dicom"

_BLOCK_BYTES = 1 << 20


class BrokenBodyError(Exception):
    """A body that is not one DICOM file, or ends too early; inside this room only."""


def write_only_part(content_type: str, blocks: Iterable[bytes], file: IO[bytes]) -> None:
    """Write the one DICOM file of an answer, bare or in a body of one part.

    Args:
        content_type: the answer's header.
        blocks: the body as it comes.
        file: where to.

    Raises:
        BrokenBodyError: another type, no part, several, or an early end.
    """
    header = Message()
    header["content-type"] = content_type
    if header.get_content_type() == DICOM:
        for block in blocks:
            file.write(block)
        return
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/related" or not boundary:
        raise BrokenBodyError
    begun = 0
    is_complete = False

    def begin() -> None:
        nonlocal begun
        begun += 1

    def end() -> None:
        nonlocal is_complete
        is_complete = True

    def data(block: bytes, start: int, stop: int) -> None:
        file.write(block[start:stop])

    parser = MultipartParser(
        boundary, {"on_part_begin": begin, "on_part_data": data, "on_end": end}
    )
    try:
        for block in blocks:
            parser.write(block)
    except FormParserError:
        raise BrokenBodyError from None
    if not is_complete or begun != 1:
        raise BrokenBodyError


class FilesBody:
    """Several files as one body, of a size that is known beforehand.

    Attributes:
        content_type: of the body.
        size_bytes: of the body.
    """

    def __init__(self, files: Sequence[InstanceFile]) -> None:
        self._files = files
        # 128 random bits do not occur in the files.
        boundary = uuid.uuid4().hex
        self.content_type = f'multipart/related; type="{DICOM}"; boundary={boundary}'
        self._head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
        self._tail = b"\r\n"
        self._end = f"--{boundary}--\r\n".encode()
        around = len(self._head) + len(self._tail)
        self.size_bytes = sum(around + file.size_bytes for file in files) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for file in self._files:
            yield self._head
            with file.path.open("rb") as opened:
                while block := opened.read(_BLOCK_BYTES):
                    yield block
            yield self._tail
        yield self._end
