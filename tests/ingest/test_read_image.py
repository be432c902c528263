"""The door: what is read, and what each kind of wrong input says."""

import hashlib
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from osler.errors import DicomError, InputError, UnreadableFileError, UnsupportedError
from osler.ingest import file_part, limits, read, read_image, read_image_bytes
from osler.testing.dicom import make_dicom

GREY = np.arange(12, dtype=np.uint16).reshape(3, 4)


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(make_dicom(GREY, Modality="DX"))
    image = read_image(path)
    assert image.modality == "DX"
    assert image.source == "picture.jpg"
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.size_px == (3, 4)
    np.testing.assert_array_equal(image.values, GREY)
    assert read_image(str(path)).sha256 == image.sha256


@pytest.mark.parametrize("implicit", [True, False])
def test_a_data_set_without_its_preamble(implicit: bool) -> None:
    syntax = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
    image = read_image_bytes(make_dicom(GREY, syntax=syntax, preamble=False), "bare.dcm")
    np.testing.assert_array_equal(image.values, GREY)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"Dear colleague, thank you for your referral.\n", "neither DICOM nor a PNG"),
        (bytes(2000), "neither DICOM nor a PNG"),
        (b"\x1f\x8b" + bytes(50), "neither DICOM nor a PNG"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "chest.dcm"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=rf"chest\.dcm: {reason}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="a folder, not a file"):
        read_image(tmp_path)
    with pytest.raises(UnreadableFileError, match=r"gone\.dcm: no such file"):
        read_image(tmp_path / "gone.dcm")
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        read_image(tmp_path / ("long" * 100))
    with pytest.raises(UnreadableFileError, match="not a file name"):
        read_image("null\0.dcm")


def test_a_device_is_not_read() -> None:
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        read_image("/dev/zero")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chest.dcm"
    path.write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(file_part, "open", refuse, raising=False)  # root may read everything
    with pytest.raises(UnreadableFileError, match=r"chest\.dcm: no permission"):
        read_image(path)


def test_a_name_of_several_lines_makes_a_message_of_one(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines\udcff.png"
    path.write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value).isprintable()


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "long.dcm"
    with path.open("wb") as file:
        file.truncate(limits.MAX_FILE_BYTES + 1)  # a hole: takes no space on disk
    with pytest.raises(UnsupportedError, match=r"long\.dcm: 1,073,741,825 bytes"):
        read_image(path)


def _png(side: int) -> bytes:
    """A PNG whose header claims a square of that side, over next to no data."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(900))),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_hundred_thousand_pixels_square_on_one_kilobyte() -> None:
    with pytest.raises(UnsupportedError, match=r"big\.png: .*100,000,000"):
        read_image_bytes(_png(100_000), "big.png")
    with pytest.raises(UnsupportedError, match=r"big\.png: 12000 x 12000 pixels"):
        read_image_bytes(_png(12_000), "big.png")
    native = make_dicom(GREY, Rows=65_535, Columns=65_535)
    with pytest.raises(UnsupportedError, match=r"big\.dcm: 65535 x 65535 pixels"):
        read_image_bytes(native, "big.dcm")
    within = make_dicom(GREY, Rows=9_000, Columns=9_000)
    with pytest.raises(DicomError, match=r"big\.dcm: .* 162,000,000 bytes .* there are 24"):
        read_image_bytes(within, "big.dcm")


def test_importing_the_room_and_its_worker_stays_light() -> None:
    code = (
        "import osler.ingest, osler.ingest.decode_worker, sys; "
        "print(*sorted({'torch', 'pydicom', 'PIL', 'transformers'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(read.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == ""
