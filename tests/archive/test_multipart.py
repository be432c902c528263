"""Bodies of several parts: exact bytes, however they are cut into blocks."""

from io import BytesIO
from pathlib import Path

import pytest

from osler.archive.multipart import BrokenBodyError, FilesBody, write_only_part
from osler.archive.push import gather
from tests.archive.studies import write_study

KIND = 'multipart/related; type="application/dicom"; boundary="edge of it"'
CONTENT = b"\r\n--edge of\r\n--edge of i\x00\r\n--"


def body(*contents: bytes) -> bytes:
    parts = [b"--edge of it\r\nContent-Type: x\r\n\r\n" + content for content in contents]
    return b"\r\n".join([*parts, b"--edge of it--\r\n"])


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_one_part_is_written_exactly(size: int, before: bytes) -> None:
    whole = before + body(CONTENT)
    file = BytesIO()
    blocks = [whole[start : start + size] for start in range(0, len(whole), size)]
    write_only_part(KIND, blocks, file)
    assert file.getvalue() == CONTENT


def test_a_bare_file() -> None:
    file = BytesIO()
    write_only_part("application/dicom", [b"ab", b"c"], file)
    assert file.getvalue() == b"abc"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (KIND, body(CONTENT)[:-10]),
        (KIND, body(CONTENT, CONTENT)),
        (KIND, b"--edge of it--\r\n"),
        (KIND, b"hello"),
        (KIND, b""),
        ("multipart/related", body(CONTENT)),
        ("text/html", b"<html>"),
        ("", b""),
    ],
)
def test_what_is_not_one_file(kind: str, data: bytes) -> None:
    with pytest.raises(BrokenBodyError):
        write_only_part(kind, [data], BytesIO())


def test_a_body_has_the_size_that_it_says(tmp_path: Path) -> None:
    write_study(tmp_path, 3)
    made = FilesBody(gather([tmp_path]))
    assert len(b"".join(made)) == made.size_bytes
    assert list(made) == list(made)  # it may have to be sent again
