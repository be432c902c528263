"""Pixel data without the text that was burned into it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid

from osler.errors import DicomError, UnsupportedError
from osler.ingest.dicom.attributes import binary, items_of, value_of
from osler.ingest.dicom.color import palette_rgb
from osler.ingest.dicom.frame_decoders import Frame, decode_frame
from osler.ingest.dicom.pixel_header import PixelHeader, read_pixel_header
from osler.ingest.limits import MAX_FILE_BYTES
from osler.privacy.actions import Actions
from osler.privacy.text_in_pixels import Box, check_reader, find_text

Stored = NDArray[np.integer[Any]]

# Segmentations, doses and maps of numbers: no picture that text was ever burned into.
_NO_PICTURES = frozenset(
    (
        uid.SegmentationStorage,
        uid.RTDoseStorage,
        uid.ParametricMapStorage,
        uid.SurfaceSegmentationStorage,
    )
)
_SMALLEST_PX = 16
# All frames of a clip of up to so many are read one by one; of more, groups of them.
_MOST_READ = 12
_MOST_ROUNDS = 3
_WIDE = 0.7  # a middle of the values that wide shows text as well as all of them would


def clean_pixels(ds: Dataset, syntax: uid.UID, actions: Actions) -> uid.UID:
    """Black out the text in an object's pixels, in place.

    Frames that hold none stay as they are, to the byte; if one does, all become uncompressed, as
    compressing them with loss once more would harm the rest of the picture.

    Returns:
        The transfer syntax of the pixel data afterwards.

    Raises:
        DicomError: pixels that cannot be decoded.
        UnsupportedError: a coding that is not read, or too much of it without compression.
    """
    header = _picture_header(ds)
    if header is None:
        return syntax
    check_reader()
    data, vr = binary(ds, "PixelData")
    frames = [
        decode_frame(data, vr, syntax, header, number) for number in range(header.number_of_frames)
    ]
    has_bits_above = _has_bits_above(ds, header, syntax)
    outside = _outside_regions(ds, header)
    stored = [frame.stored.copy() for frame in frames]
    boxes = _blacken_all(stored, frames, header, ds, outside)
    if not boxes and not has_bits_above:
        return syntax
    actions.note("blacked out", "areas of text in the pixels", len(boxes))
    actions.note("removed", "bits above the pixel values", has_bits_above)
    return _store(ds, stored, frames[0], header, syntax)


def _picture_header(ds: Dataset) -> PixelHeader | None:
    if "PixelData" not in ds or value_of(ds, "SOPClassUID") in _NO_PICTURES:
        return None
    header = read_pixel_header(ds)
    if header.bits_allocated == 1 or min(header.rows, header.columns) < _SMALLEST_PX:
        return None
    samples = header.rows * header.columns * header.samples_per_pixel * header.number_of_frames
    if samples * max(1, header.bits_allocated // 8) > MAX_FILE_BYTES:
        raise UnsupportedError("more pixels than can be looked through for text at once")
    return header


def _has_bits_above(ds: Dataset, header: PixelHeader, syntax: uid.UID) -> bool:
    """Whether overlays may stand in the bits that the pixel values leave (PS3.5 8.1.1, retired)."""
    if header.bits_stored == header.bits_allocated or syntax.is_compressed:
        return False
    return any(
        tag.group in range(0x6000, 0x6100) and tag.element == 0x0102 and ds[tag].value
        for tag in list(ds.keys())
    )


def _outside_regions(ds: Dataset, header: PixelHeader) -> NDArray[np.bool_] | None:
    """What lies outside an ultrasound's calibrated regions: banners with names, dates and numbers.

    Source: PS3.3 C.8.5.5.
    """
    if value_of(ds, "Modality") not in ("US", "IVUS"):
        return None
    outside = np.ones((header.rows, header.columns), np.bool_)
    for region in items_of(ds, "SequenceOfUltrasoundRegions"):
        x0, y0, x1, y1 = (
            value_of(region, f"RegionLocation{name}")
            for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")
        )
        if not all(isinstance(place, int) for place in (x0, y0, x1, y1)):
            return None
        outside[y0 : y1 + 1, x0 : x1 + 1] = False
    return None if outside.all() else outside


def _blacken_all(
    stored: Sequence[Stored],
    frames: Sequence[Frame],
    header: PixelHeader,
    ds: Dataset,
    outside: NDArray[np.bool_] | None,
) -> list[Box]:
    """Black out what is found, and look again: large text may have hidden small."""
    black = _black(frames[0], header, ds)
    found: list[Box] = []
    for _ in range(_MOST_ROUNDS):
        boxes = [
            box
            for picture in _pictures(stored, frames[0], header, ds)
            for box in find_text(picture)
        ]
        if not boxes:
            break
        for each in stored:
            for box in boxes:
                each[box.top : box.bottom, box.left : box.right] = black
        found += boxes
    # Only now: an edge of a region may cut through a line, whose half nothing would read.
    if outside is not None and any((each[outside] != black).any() for each in stored):
        for each in stored:
            each[outside] = black
        found.append(Box(0, 0, header.rows, header.columns))
    return found


def _pictures(
    stored: Sequence[Stored], frame: Frame, header: PixelHeader, ds: Dataset
) -> list[NDArray[np.uint8]]:
    """Grey pictures that together show all text of an object."""
    grey = [_grey(each, header, ds) for each in stored]
    if len(grey) > _MOST_READ:
        groups = np.array_split(np.arange(len(grey)), _MOST_READ)
        # Bright text of any frame stands out in the brightest of its group.
        brightest = [np.maximum.reduce([grey[place] for place in group]) for group in groups]
        grey = [grey[0], *brightest]
    is_deep = header.bits_stored > 8 and not header.is_palette
    return [picture for values in grey for picture in _levels(values, is_deep=is_deep)]


def _grey(stored: Stored, header: PixelHeader, ds: Dataset) -> NDArray[Any]:
    if header.is_palette:
        return np.asarray(palette_rgb(stored, ds).max(axis=-1))
    if stored.ndim == 2:
        return stored
    if header.photometric_interpretation.startswith("YBR"):
        return stored[..., 0]
    return np.asarray(stored.max(axis=-1))


def _levels(values_HW: NDArray[Any], *, is_deep: bool) -> list[NDArray[np.uint8]]:
    """All values from black to white; and the middle ones, where extremes of many flatten these."""
    values = values_HW.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return []
    shown = [_scaled(values, low, high)]
    middle_low, middle_high = (float(edge) for edge in np.percentile(values, (1, 99)))
    if is_deep and 0 < middle_high - middle_low < _WIDE * (high - low):
        shown.append(_scaled(values, middle_low, middle_high))
    return shown


def _scaled(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    return ((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def _black(frame: Frame, header: PixelHeader, ds: Dataset) -> Any:
    stored = frame.stored
    if header.is_palette:
        entries = np.arange(1 << min(header.bits_stored, 16), dtype=np.uint16)[None]
        return int(palette_rgb(entries, ds).sum(axis=-1).argmin())
    if frame.photometric_interpretation.startswith("YBR"):
        return np.array(
            [0, 1 << (header.bits_stored - 1), 1 << (header.bits_stored - 1)], stored.dtype
        )
    if header.photometric_interpretation == "MONOCHROME1":
        return stored.max()
    return stored.min() if stored.ndim == 2 else np.zeros(3, stored.dtype)


def _store(
    ds: Dataset, stored: Sequence[Stored], frame: Frame, header: PixelHeader, syntax: uid.UID
) -> uid.UID:
    itemsize = stored[0].dtype.itemsize
    if sum(each.nbytes for each in stored) > MAX_FILE_BYTES:
        raise UnsupportedError("without compression the pixels are more than one file may hold")
    if len({(each.shape, each.dtype) for each in stored}) > 1:
        raise DicomError("frames of different kinds in one object")
    after = uid.UID(uid.ExplicitVRLittleEndian) if syntax.is_compressed else syntax
    swapped = after == uid.ExplicitVRBigEndian and itemsize > 1
    data = b"".join((each.byteswap() if swapped else each).tobytes() for each in stored)
    ds.PixelData = data + bytes(len(data) % 2)
    ds["PixelData"].VR = "OW" if itemsize > 1 or after.is_implicit_VR else "OB"
    ds["PixelData"].is_undefined_length = False
    ds.BitsAllocated = 8 * itemsize
    ds.HighBit = header.bits_stored - 1
    if stored[0].ndim == 3:
        ds.PhotometricInterpretation = frame.photometric_interpretation
        ds.PlanarConfiguration = 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in ds:
            delattr(ds, keyword)
    return after
