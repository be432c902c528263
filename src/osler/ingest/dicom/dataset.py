"""From a file's bytes to the few attributes that describe its pixels."""

import zlib
from collections.abc import Sequence
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from osler.errors import DicomError, UnsupportedError
from osler.ingest.dicom.attributes import MALFORMED, tag_of
from osler.ingest.limits import inflated_bytes

# Nothing else is read: a patient's name cannot leak from where it never was.
_KEYWORDS = """
    SOPClassUID ImageType SpecimenLabelInImage
    Modality NumberOfFrames
    Rows Columns SamplesPerPixel PhotometricInterpretation PlanarConfiguration
    BitsAllocated BitsStored HighBit PixelRepresentation
    PixelPaddingValue PixelPaddingRangeLimit
    RescaleSlope RescaleIntercept ModalityLUTSequence
    WindowCenter WindowWidth VOILUTFunction VOILUTSequence
    RedPaletteColorLookupTableDescriptor RedPaletteColorLookupTableData
    GreenPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableData
    BluePaletteColorLookupTableDescriptor BluePaletteColorLookupTableData
    SegmentedRedPaletteColorLookupTableData
    SegmentedGreenPaletteColorLookupTableData
    SegmentedBluePaletteColorLookupTableData
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
    ICCProfile DirectoryRecordSequence
    PixelData FloatPixelData DoubleFloatPixelData
""".split()

_PIXEL_KEYWORDS = {"PixelData", "FloatPixelData", "DoubleFloatPixelData"}
_PREAMBLE_BYTES = 132
# Before the transfer syntax stand a length, a version and two UIDs.
_TRANSFER_SYNTAX_WITHIN_BYTES = 4096
_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
# PixelData, FloatPixelData, DoubleFloatPixelData, in either byte order
_PIXEL_TAGS = {
    tag
    for element in (0x10, 0x08, 0x09)
    for tag in (bytes([0xE0, 0x7F, element, 0]), bytes([0x7F, 0xE0, 0, element]))
}


def read_attributes(data: bytes) -> tuple[Dataset, UID]:
    """Parse a DICOM file, or a bare data set without preamble and file meta information.

    Args:
        data: the whole file.

    Returns:
        The attributes that describe the pixels, and the transfer syntax of the pixel data.

    Raises:
        DicomError: the structure is broken, or nothing says how the pixel data is encoded.
        UnsupportedError: a deflated data set that becomes more than is read.

    Source: PS3.10 section 7.1, PS3.5 section 7 and annex A.
    """
    try:
        deflated = _deflated_part(data)
        plain = data if deflated is None else _inflate(deflated)
        wanted = [tag_of(keyword) for keyword in _KEYWORDS]
        ds = dcmread(BytesIO(plain), force=True, specific_tags=wanted)
        if not _PIXEL_KEYWORDS & set(ds.dir()) and _has_pixel_tag(plain):
            raise DicomError("the pixel data is truncated")  # pydicom has dropped it
        syntax = ds.file_meta.get("TransferSyntaxUID")
        return ds, UID(str(syntax)) if syntax else _guessed_syntax(ds)
    except MALFORMED:
        raise DicomError("the DICOM structure is broken or truncated") from None
    except zlib.error:
        raise DicomError("the deflated data set is damaged") from None


def read_header(data: bytes, keywords: Sequence[str | int]) -> tuple[Dataset, bool]:
    """Parse what stands before the pixel data of a DICOM file, or of its beginning.

    Args:
        data: the file, or as much of it as is at hand.
        keywords: the attributes wanted; private ones by their tags.

    Returns:
        The attributes, and whether the parsing came as far as the pixel data.

    Raises:
        As `read_attributes`.
    """
    try:
        deflated = _deflated_part(data)
        plain = BytesIO(data if deflated is None else _inflate(deflated))
        wanted = [tag_of(keyword) for keyword in keywords]
        ds = dcmread(plain, force=True, specific_tags=wanted, stop_before_pixels=True)
        return ds, plain.read(4) in _PIXEL_TAGS
    except MALFORMED:
        raise DicomError("the DICOM structure is broken or truncated") from None
    except zlib.error:
        raise DicomError("the deflated data set is damaged") from None


def is_little_endian(ds: Dataset) -> bool:
    """Whether the words of the data set's binary values are little endian."""
    return ds.original_encoding[1] is not False


def _has_pixel_tag(data: bytes) -> bool:
    return b"\xe0\x7f\x10\x00" in data or b"\x7f\xe0\x00\x10" in data


def _deflated_part(data: bytes) -> bytes | None:
    """What follows the file meta information, if that says that the rest is deflated."""
    if data[128:132] != b"DICM" or _DEFLATED not in data[:_TRANSFER_SYNTAX_WITHIN_BYTES]:
        return None
    file = BytesIO(data)
    file.seek(_PREAMBLE_BYTES)
    meta = read_dataset(file, False, True, stop_when=_after_file_meta)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    return data[file.tell() :]


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _inflate(deflated: bytes) -> bytes:
    """Inflate a data set, which is explicit VR little endian (PS3.5 A.5), within bounds."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    most = inflated_bytes(len(deflated))
    plain = inflater.decompress(deflated, most)
    if inflater.unconsumed_tail:
        raise UnsupportedError(
            f"the deflated data set holds more than the {most:,} bytes that are read"
        )
    if not inflater.eof:
        raise DicomError("the deflated data set is truncated")
    return plain


def _guessed_syntax(ds: Dataset) -> UID:
    """The syntax by which a data set without file meta information could be parsed."""
    if "PixelData" in ds and ds["PixelData"].is_undefined_length:
        raise DicomError("no transfer syntax says how the pixel data is compressed")
    is_implicit, is_little = ds.original_encoding
    if is_implicit:
        return UID(ImplicitVRLittleEndian)
    return UID(ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian)
