"""A DICOM object's frames to `Image`s, step by step."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID

from osler.errors import DicomError, UnsupportedError
from osler.ingest.color_profile import as_srgb
from osler.ingest.dicom.attributes import binary, value_of
from osler.ingest.dicom.color import display_rgb, palette_rgb
from osler.ingest.dicom.dataset import read_attributes
from osler.ingest.dicom.frame_decoders import Frame, decode_frame
from osler.ingest.dicom.glass import refuse_glass
from osler.ingest.dicom.grey import modality_values, voi_of, without_padding
from osler.ingest.dicom.pixel_header import PixelHeader, read_pixel_header
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
    refuse_glass(ds)
    header = read_pixel_header(ds)
    if header.number_of_frames > 1:
        raise UnsupportedError(
            f"multi-frame with {header.number_of_frames} frames, and this takes one image"
        )
    return _image(ds, syntax, header, 0, source, sha256)


def decode_dicom_frames(
    data: bytes, frames: Sequence[int], *, source: str, sha256: str
) -> Iterator[Image]:
    """Decode some frames of an object with one or more.

    Args:
        data: the whole file.
        frames: their numbers, from 0, in the order wanted.
        source: as `decode_dicom` takes it.
        sha256: as `decode_dicom` takes it.

    Raises:
        DicomError: as `decode_dicom`, or no such frame.
        UnsupportedError: a coding that is not read.
    """
    ds, syntax = read_attributes(data)
    refuse_glass(ds)
    header = read_pixel_header(ds)
    for frame in frames:
        if not 0 <= frame < header.number_of_frames:
            raise DicomError(f"there is no frame {frame + 1}")
        yield _image(ds, syntax, header, frame, source, sha256)


def modality_of(ds: Dataset) -> str | None:
    """DICOM Modality, where it is a code."""
    value = value_of(ds, "Modality")
    return value if isinstance(value, str) and _MODALITY.fullmatch(value) else None


def _image(
    ds: Dataset, syntax: UID, header: PixelHeader, number: int, source: str, sha256: str
) -> Image:
    frame = decode_frame(*binary(ds, "PixelData"), syntax, header, number)
    modality = modality_of(ds)
    if header.is_palette or not header.is_grey:
        return Image(
            values=_colors(frame, ds, header),
            space="display",
            modality=modality,
            source=source,
            sha256=sha256,
            decoder=frame.decoder,
        )
    values = modality_values(frame.stored, ds, header, number)
    # CT windows are fixed in Hounsfield units and need no range: padding stays black below them.
    if modality != "CT":
        values = without_padding(values, frame.stored, ds, header)
    return Image(
        values=values,
        space="modality",
        modality=modality,
        monochrome1=header.photometric_interpretation == "MONOCHROME1",
        voi=voi_of(ds, values, number),
        source=source,
        sha256=sha256,
        decoder=frame.decoder,
    )


def _colors(frame: Frame, ds: Dataset, header: PixelHeader) -> NDArray[np.uint8]:
    if header.is_palette:
        rgb = palette_rgb(frame.stored, ds)
    else:
        rgb = display_rgb(frame.stored, frame.photometric_interpretation, header.bits_stored)
    profile = value_of(ds, "ICCProfile")
    if not isinstance(profile, bytes):
        return rgb
    return np.asarray(as_srgb(PIL.Image.fromarray(rgb), profile))
