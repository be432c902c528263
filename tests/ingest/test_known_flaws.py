"""The shapes that have broken readers of files: each costs a worker, at most, and one line.

Small files that say that they are large or become so, tables that are too short, things within
themselves. Other such tests: zip slip and bombs of members in test_zip_file, entities of XML in
fhir/test_ccda, rings of references in fhir/test_hostile_records, J2K boxes in test_hostile.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import Dataset, uid

from osler.errors import InputError
from osler.ingest import read_image_bytes
from osler.ingest.fhir import read as records
from osler.ingest.fhir.read import read_record_bytes
from osler.ingest.limits import MAX_WORKER_BYTES, MIN_WORKER_BYTES, worker_bytes
from osler.ingest.scan import scan
from osler.ingest.wire import receive_payload
from osler.ingest.worker_pool import WorkerPool, decoding_workers
from osler.testing.dicom import encode_frame, make_dicom
from osler.testing.fhir import PATIENT, bundle, coded, resource

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
MEBIBYTE = 1 << 20
CODECS = (
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
)


@pytest.fixture(autouse=True)
def _within_a_gibibyte() -> Iterator[None]:
    yield
    for pool in (decoding_workers, records._workers):
        assert peak_bytes(pool) < MIN_WORKER_BYTES


def peak_bytes(pool: WorkerPool) -> int:
    """The most memory that any of the workers has had."""
    peaks = [0]
    for worker in pool._all:
        status = Path(f"/proc/{worker._process.pid}/status").read_text()
        peaks.append(int(status.split("VmHWM:")[1].split()[0]) << 10)
    return max(peaks)


def refused(data: bytes) -> str:
    """Why a file is not read."""
    with pytest.raises(InputError) as caught:
        read_image_bytes(data, "x")
    message = str(caught.value)
    assert message.startswith("x: ")
    assert message.isprintable()
    return message


def deflated_zeros(mebibytes: int) -> bytes:
    """A raw deflate stream, made in the time that one mebibyte takes."""
    deflater = zlib.compressobj(9, wbits=-15)
    one = deflater.compress(bytes(MEBIBYTE)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return one * mebibytes + b"\3\0"


def gzipped_zeros(start: bytes, mebibytes: int) -> bytes:
    """A gzip file, but for its checksum."""
    deflater = zlib.compressobj(9, wbits=-15)
    head = deflater.compress(start) + deflater.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\3" + head + deflated_zeros(mebibytes) + bytes(8)


def png(width: int, height: int, zlib_data: bytes) -> bytes:
    """A picture that says of itself what it likes."""
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib_data),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


# --- a size that is far over the file ---------------------------------------------------------


def test_rows_and_columns_of_a_hundred_megapixels_in_forty_eight_bytes() -> None:
    assert "need 99,990,000 bytes" in refused(make_dicom(GREY, Rows=9999, Columns=10000))


@pytest.mark.parametrize("syntax", CODECS)
def test_rows_and_columns_that_the_codestream_has_not(syntax: str) -> None:
    data = make_dicom(GREY, syntax=syntax, Rows=9999, Columns=10000)
    assert "9999 x 10000, but" in refused(data) or "damaged" in refused(data)


def test_a_codestream_that_is_as_large_as_the_header_says_and_empty() -> None:
    stream = bytearray(encode_frame(GREY, uid.JPEG2000Lossless, 8))
    struct.pack_into(">II", stream, 8, 10000, 9999)  # SIZ: the far corner
    struct.pack_into(">II", stream, 24, 10000, 9999)  # and one tile for all of it
    refused_or_grey(make_dicom(GREY, syntax=uid.JPEG2000Lossless, frame=bytes(stream),
                               Rows=9999, Columns=10000))  # fmt: skip


def refused_or_grey(data: bytes) -> None:
    """A decoder may fill up what is missing; what counts is that it takes no more than it may."""
    try:
        read_image_bytes(data, "x")
    except InputError as error:
        reason = str(error)
    else:
        return
    assert reason.startswith("x: ")


def test_a_codestream_of_more_tiles_than_memory_holds() -> None:
    stream = bytearray(encode_frame(GREY, uid.JPEG2000Lossless, 8))
    struct.pack_into(">II", stream, 24, 1, 1)
    refused_or_grey(make_dicom(GREY, syntax=uid.JPEG2000Lossless, frame=bytes(stream)))


def test_an_element_longer_than_its_file() -> None:
    data = make_dicom(GREY)
    at = data.index(b"\xe0\x7f\x10\0OB\0\0") + 8
    assert "there are 44" in refused(data[:at] + b"\xf0\xff\xff\xff" + data[at + 4 : -4])


def test_a_gigabyte_of_window_centers() -> None:
    element = b"\x28\0\x50\x10UN\0\0\xf0\xff\xff\x3f"
    refused(b"\x08\0\x60\0CS\x02\0CT" + element)


def test_a_volume_of_a_gigavoxel_in_four_hundred_bytes() -> None:
    volume = bytearray(nibabel.Nifti1Image(GREY[:, :, None], np.eye(4)).to_bytes())
    struct.pack_into("<4h", volume, 40, 3, 600, 600, 700)
    with pytest.raises(InputError, match=r"^x: the NIfTI file is damaged or truncated$"):
        _scanned(bytes(volume))


@pytest.mark.parametrize("start", [bytes(4) + b"n+2\0", bytes(344) + b"n+1"])
def test_a_volume_whose_header_breaks_off(start: bytes) -> None:
    with pytest.raises(InputError, match=r"^x: the NIfTI file is damaged or truncated$"):
        _scanned(start + bytes(0 if len(start) > 300 else 200))


def _scanned(data: bytes, name: str = "x") -> None:
    facts = {"task": "describe", "source": name, "whole": True}
    decoding_workers.ask(facts, data, receive_payload)


@pytest.mark.parametrize(("width", "height"), [(9999, 10000), (60000, 60000)])
def test_a_picture_of_more_pixels_than_bytes(width: int, height: int) -> None:
    reason = refused(png(width, height, zlib.compress(bytes(100))))
    assert "more than the" in reason or "truncated" in reason


def test_a_tiff_with_one_endless_strip() -> None:
    file = BytesIO()
    Picture.fromarray(GREY).save(file, "TIFF")
    data = bytearray(file.getvalue())
    for tag in (256, 257, 278, 279):  # width, height, rows of a strip, bytes of a strip
        at = data.index(struct.pack("<H", tag), 8)
        struct.pack_into("<HII", data, at + 2, 4, 1, 9000 if tag < 279 else 0xFFFFFFF0)
    refused(bytes(data))


# --- what becomes large -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_deflated_data_set_of_two_gibibytes() -> None:
    data = make_dicom(GREY, syntax=uid.DeflatedExplicitVRLittleEndian)
    start = data.index(uid.DeflatedExplicitVRLittleEndian.encode()) + 22
    assert "more than" in refused(data[:start] + deflated_zeros(2048))


@pytest.mark.slow
def test_a_gzipped_volume_of_two_gibibytes() -> None:
    head = nibabel.Nifti1Image(GREY[:, :, None], np.eye(4)).to_bytes()
    with pytest.raises(InputError, match=r"^x: .*more than"):
        _scanned(gzipped_zeros(head, 2048))


@pytest.mark.slow
def test_a_picture_of_a_hundred_megapixels_of_nothing() -> None:
    width, height = 9900, 9900
    size = (3 * width + 1) * height
    adler = struct.pack(">I", (size % 65521) << 16 | 1)
    rest = bytes(size % MEBIBYTE)
    deflater = zlib.compressobj(9, wbits=-15)
    tail = deflater.compress(rest) + deflater.flush()
    data = png(width, height, b"\x78\x01" + deflated_zeros(size // MEBIBYTE)[:-2] + tail + adler)
    assert len(data) < MEBIBYTE
    refused_or_grey(data)


@pytest.mark.slow
def test_a_gzipped_record_of_two_gibibytes() -> None:
    with pytest.raises(InputError, match=r"^x: .*more than"):
        read_record_bytes(gzipped_zeros(b'{"resourceType":"Bundle"', 2048), "x")


def test_a_gzip_within_gzips() -> None:
    data = gzip.compress(gzip.compress(nibabel.Nifti1Image(GREY[:, :, None], np.eye(4)).to_bytes()))
    with pytest.raises(InputError, match="something else than NIfTI"):
        _scanned(data)


def test_memory_grows_with_the_file_and_not_with_what_it_says() -> None:
    assert worker_bytes(len(make_dicom(GREY))) == MIN_WORKER_BYTES
    assert MIN_WORKER_BYTES < worker_bytes(50_000_000) < MAX_WORKER_BYTES
    assert worker_bytes(1 << 30) == MAX_WORKER_BYTES


# --- tables that are too short ----------------------------------------------------------------


def palette(descriptor: list[int], **tables: bytes) -> bytes:
    """An object whose three palettes are alike."""
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for color in ("Red", "Green", "Blue"):
        attributes[f"{color}PaletteColorLookupTableDescriptor"] = descriptor
        for name, data in tables.items():
            attributes[name.format(color)] = data
    return make_dicom(np.full((6, 8), 255, np.uint8), **attributes)


def test_a_palette_shorter_than_it_says() -> None:
    data = palette([0, 0, 16], **{"{}PaletteColorLookupTableData": bytes(8)})
    assert "a lookup table has" in refused(data)


def test_indices_beyond_the_palette_take_its_last_entry() -> None:
    table = bytes(range(4))
    image = read_image_bytes(palette([4, 0, 8], **{"{}PaletteColorLookupTableData": table}), "x")
    assert (image.values == 3).all()
    image = read_image_bytes(
        palette([4, 65000, 8], **{"{}PaletteColorLookupTableData": table}), "x"
    )
    assert (image.values == 0).all()


@pytest.mark.parametrize(
    "words",
    [
        [2, 65535, 0, 0],  # repeats itself
        [0, 1, 7, 1, 65535, 9] * 50,  # lines of more entries than there may be
        [2, 1, 65535, 65535],  # repeats what is not there
        [0, 65535, 1],
    ],
)
def test_segments_that_expand_without_end(words: list[int]) -> None:
    segments = np.array(words, "<u2").tobytes()
    data = palette([0, 0, 16], **{"Segmented{}PaletteColorLookupTableData": segments})
    refused_or_grey(data)


# --- things within themselves -----------------------------------------------------------------


def test_sequences_in_sequences_with_lengths() -> None:
    inner = b""
    for _ in range(2000):
        item = b"\xfe\xff\0\xe0" + struct.pack("<I", len(inner)) + inner
        inner = b"\x28\0\0\x30SQ\0\0" + struct.pack("<I", len(item)) + item
    refused(b"\x08\0\x60\0CS\x02\0CT" + inner)
    with pytest.raises(InputError):
        _scanned(b"\x08\0\x60\0CS\x02\0CT" + inner)


def test_a_directory_whose_records_lead_back(tmp_path: Path) -> None:
    record = Dataset()
    record.OffsetOfTheNextDirectoryRecord = 0
    record.OffsetOfReferencedLowerLevelDirectoryEntity = 1
    record.RecordInUseFlag = 0xFFFF
    record.DirectoryRecordType = "IMAGE"
    record.ReferencedFileID = ["DICOMDIR"]
    path = tmp_path / "DICOMDIR"
    path.write_bytes(make_dicom(GREY, DirectoryRecordSequence=[record, record]))
    with pytest.raises(InputError, match="no images that the DICOMDIR lists"):
        scan(path)


def test_contained_resources_that_refer_to_one_another() -> None:
    contained = [
        {"resourceType": "Medication", "id": f"m{n}", "code": coded("x"),
         "ingredient": [{"itemReference": {"reference": f"#m{1 - n}"}}]}
        for n in range(2)
    ]  # fmt: skip
    request = resource(
        "MedicationRequest",
        "r",
        medicationReference={"reference": "#m0"},
        contained=contained,
        basedOn=[{"reference": "MedicationRequest/r"}],
        reasonReference=[{"reference": "MedicationRequest/r"}],
    )
    assert len(read_record_bytes(bundle(PATIENT, request), "x").events) == 1


def test_a_tiff_whose_directories_form_a_ring() -> None:
    file = BytesIO()
    Picture.fromarray(GREY).save(file, "TIFF")
    data = bytearray(file.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    refused_or_grey(bytes(data))
