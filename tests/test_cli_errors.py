"""Files that are wrong, as a user meets them: one line that names file and reason, exit code 1."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import MPEG2MPML

from osler.testing.dicom import make_dicom

OSLER = [sys.executable, "-c", "import sys; from osler.cli import main; sys.exit(main())"]


def _empty(folder: Path) -> Path:
    path = folder / "empty.dcm"
    path.touch()
    return path


def _text(folder: Path) -> Path:
    path = folder / "text.dcm"
    path.write_text("This is a letter, and no image.\n" * 20)
    return path


def _dicom(path: Path, **changes: Any) -> Path:
    stored = np.zeros((4, 4), dtype=np.uint16)
    path.write_bytes(make_dicom(stored, PatientName="DOE^JANE", **changes))
    return path


def _without_pixels(folder: Path) -> Path:
    return _dicom(folder / "plan.dcm", PixelData=None)


def _unsupported_syntax(folder: Path) -> Path:
    return _dicom(folder / "film.dcm", syntax=MPEG2MPML, frame=b"moving pictures")


def _huge_dicom(folder: Path) -> Path:
    return _dicom(folder / "huge.dcm", Rows=65_535, Columns=65_535)


def _huge_picture(folder: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    path = folder / "huge.png"
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 900_000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    assert path.stat().st_size < 1024
    return path


def _truncated_picture(folder: Path) -> Path:
    path = folder / "half.dcm"
    whole = get_testdata_file("RG1_J2KI.dcm", download=False)
    assert isinstance(whole, str)
    path.write_bytes(Path(whole).read_bytes()[:20_000])
    return path


def _folder(folder: Path) -> Path:
    return folder


def _missing(folder: Path) -> Path:
    return folder / "missing.png"


def _strange_name(folder: Path) -> Path:
    return folder / "two\nlines.png"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_empty, "empty"),
        (_text, ""),
        (_without_pixels, "pixel"),
        (_unsupported_syntax, "transfer syntax"),
        (_huge_dicom, "65535|65,535"),
        (_huge_picture, "100000|100,000"),
        (_truncated_picture, ""),
        (_folder, "folder"),
        (_missing, "no such file"),
        (_strange_name, "no such file"),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_1(
    make: Callable[[Path], Path], reason: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    done = _osler("ask", str(path), "What is shown?")
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("osler: ")
    assert path.name.split("\n")[0] in lines[0]
    assert any(word in lines[0] for word in reason.split("|")), lines[0]
    assert "DOE" not in lines[0]


def test_a_model_that_is_not_here_says_what_to_download() -> None:
    done = _osler("ask", "What is shown?", "--model", "google/medgemma-4b-it")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "hf download google/medgemma-4b-it --local-dir medgemma-4b-it" in done.stderr


@pytest.mark.parametrize("verb", ["show", "embed"])
def test_a_place_that_cannot_be_written_fails_before_the_work(verb: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for out, reason in (("no-such/seen.png", "there is no folder"), ("folder.png", "a folder")):
        done = _osler(verb, "never-read.png", "--out", str(tmp_path / out))
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert out in done.stderr
        assert reason in done.stderr


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    done = _osler("info", str(tmp_path))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "config.json" in done.stderr


def _osler(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OSLER, *arguments], capture_output=True, text=True, env={**os.environ, "HF_HOME": "none"}
    )
