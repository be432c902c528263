"""Where elements lie: by real files, and by what nobody should write."""

import struct
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import DATA_ROOT

from osler.archive.child import is_whole, read_instance
from osler.archive.elements import Element, MalformedError, elements
from osler.errors import DicomError, UnreadableFileError

ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HHL", 0xFFFE, n, 0) for n in (0xE000, 0xE00D, 0xE0DD))
OPEN_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
OPEN_SEQUENCE = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
OPEN_UNKNOWN = struct.pack("<HH2sHL", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF)
ROWS = struct.pack("<HH2sHH", 0x0028, 0x0010, b"US", 2, 512)
IMPLICIT_ROWS = struct.pack("<HHLH", 0x0028, 0x0010, 2, 512)


def tags(data: bytes) -> list[int]:
    found = elements(BytesIO(data), 0, is_implicit=False, is_little_endian=True)
    return [element.tag for element in found]


@pytest.mark.filterwarnings("ignore")  # of pydicom, which the files were made to trouble
def test_real_files_are_read_as_pydicom_reads_them() -> None:
    read, broken = 0, set()
    for path in sorted((Path(DATA_ROOT) / "test_files").rglob("*.dcm")):
        try:
            file = read_instance(path)
        except (DicomError, UnreadableFileError):
            continue
        ds = dcmread(path, stop_before_pixels=True)
        assert file.instance.study_uid == ds.StudyInstanceUID
        assert file.instance.series_uid == ds.SeriesInstanceUID
        assert file.instance.sop_uid == ds.SOPInstanceUID
        assert file.transfer_syntax == ds.file_meta.TransferSyntaxUID
        read += 1
        if not is_whole(path):
            broken.add(path.name)
    assert read > 50
    assert broken == {"MR_truncated.dcm", "rtplan_truncated.dcm"}


def test_places() -> None:
    data = ROWS + OPEN_SEQUENCE + SEQUENCE_END + ROWS
    found = list(elements(BytesIO(data), 0, is_implicit=False, is_little_endian=True))
    assert found[0] == Element(0x00280010, 0, 8, 2)
    assert found[2] == Element(0x00280010, 30, 38, 2)


def test_what_is_inside_sequences_is_not_told() -> None:
    nested = OPEN_SEQUENCE + OPEN_ITEM + ROWS + OPEN_SEQUENCE + ITEM + SEQUENCE_END + ITEM_END
    assert tags(nested + SEQUENCE_END + ROWS) == [0x00081140, 0x00280010]
    unknown = OPEN_UNKNOWN + OPEN_ITEM + IMPLICIT_ROWS + ITEM_END + SEQUENCE_END
    assert tags(unknown + ROWS) == [0x00091001, 0x00280010]


@pytest.mark.parametrize(
    "data",
    [
        ROWS[:-1],
        ROWS[:5],
        ROWS + OPEN_SEQUENCE[:9],
        OPEN_SEQUENCE,
        OPEN_SEQUENCE + OPEN_ITEM + SEQUENCE_END,
        OPEN_SEQUENCE + ROWS,
        OPEN_SEQUENCE + ITEM_END,
        ITEM,
        ITEM_END,
        SEQUENCE_END,
        OPEN_ITEM,
        (OPEN_SEQUENCE + OPEN_ITEM) * 1000,
        struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFFE),
    ],
)
def test_what_is_no_data_set(data: bytes) -> None:
    with pytest.raises(MalformedError):
        tags(data)
