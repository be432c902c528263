"""One single-frame DICOM object to an `Image`, step by step."""

import re

from pydicom import Dataset

from osler.ingest.dicom.attributes import binary, value_of
from osler.ingest.dicom.color import display_rgb, palette_rgb
from osler.ingest.dicom.dataset import read_attributes
from osler.ingest.dicom.frame_decoders import decode_frame
from osler.ingest.dicom.grey import modality_values, voi_of, without_padding
from osler.ingest.dicom.pixel_header import read_pixel_header
from osler.ingest.image import Image

_MODALITY = re.compile(r"[A-Z0-9_]{1,16}")


def decode_dicom(data: bytes, *, source: str, sha256: str) -> Image:
    """Decode a single-frame DICOM object.

    Args:
        data: the whole file.
        source: the file's name, for the record.
        sha256: digest of `data`, for the record.

    Returns:
        Grey as modality values, color as display RGB.

    Raises:
        DicomError: malformed, truncated, or without pixels.
        UnsupportedError: several frames, or a coding that is not read.
    """
    ds, syntax = read_attributes(data)
    header = read_pixel_header(ds)
    frame = decode_frame(*binary(ds, "PixelData"), syntax, header)
    modality = _modality(ds)
    if header.is_palette or not header.is_grey:
        if header.is_palette:
            rgb = palette_rgb(frame.stored, ds)
        else:
            rgb = display_rgb(frame.stored, frame.photometric_interpretation, header.bits_stored)
        return Image(
            values=rgb,
            space="display",
            modality=modality,
            source=source,
            sha256=sha256,
            decoder=frame.decoder,
        )
    values = modality_values(frame.stored, ds, header)
    # CT windows are fixed in Hounsfield units and need no range: padding stays black below them.
    if modality != "CT":
        values = without_padding(values, frame.stored, ds, header)
    return Image(
        values=values,
        space="modality",
        modality=modality,
        monochrome1=header.photometric_interpretation == "MONOCHROME1",
        voi=voi_of(ds, values),
        source=source,
        sha256=sha256,
        decoder=frame.decoder,
    )


def _modality(ds: Dataset) -> str | None:
    value = value_of(ds, "Modality")
    return value if isinstance(value, str) and _MODALITY.fullmatch(value) else None
