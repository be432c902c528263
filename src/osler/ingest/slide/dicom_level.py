"""What a file of a DICOM slide says of itself: one level of a pyramid, or what must not be read."""

from dataclasses import replace
from typing import BinaryIO

from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from osler.errors import DicomError
from osler.ingest.dicom.attributes import MALFORMED, all_numbers, integer, items_of, value_of
from osler.ingest.dicom.describe import KEYWORDS, object_facts
from osler.ingest.dicom.glass import refuse_glass
from osler.ingest.facts import FileFacts, SlideFacts
from osler.ingest.slide.libraries import slide_library
from osler.ingest.slide.mpp import plausible_mpp

_OF_SLIDES = ["OpticalPathSequence", "TotalPixelMatrixRows", "TotalPixelMatrixColumns"]
_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in [*KEYWORDS, *_OF_SLIDES]]
# What is said of each of many thousand tiles; nothing of it is needed to know what a file is.
_PER_FRAME_GROUPS = 0x52009230


def describe_level(file: BinaryIO) -> FileFacts | None:
    """Say what a file of a DICOM slide holds.

    Args:
        file: at its beginning.

    Returns:
        None where it is another kind of object.

    Raises:
        DicomError: malformed, or without sizes.
        UnsupportedError: a picture of the label or of the whole glass.

    Source: PS3.3 A.32.8, C.8.12.4.
    """
    ds = _header(file)
    if value_of(ds, "SOPClassUID") != VLWholeSlideMicroscopyImageStorage:
        return None
    refuse_glass(ds)
    rows, columns = integer(ds, "TotalPixelMatrixRows"), integer(ds, "TotalPixelMatrixColumns")
    if min(rows, columns) < 1:
        raise DicomError("a slide without a size")
    facts = object_facts(ds, "SM", rows, columns, 1)
    slide_library("wsidicom")
    height_mm, width_mm = facts.pixel_spacing_mm or (0.0, 0.0)
    return replace(
        facts,
        kind="slide",
        slide=SlideFacts(
            reader="wsidicom",
            bounds_px=(0, 0, columns, rows),
            mpp=plausible_mpp(width_mm * 1000, height_mm * 1000),
            objective_power=_objective_power(ds),
        ),
    )


def icc_profile(path: str) -> bytes | None:
    """The ICC profile of a level's colours.

    Raises:
        DicomError: malformed.

    Source: PS3.3 C.8.12.5 and C.11.15.
    """
    with open(path, "rb") as file:
        for optical_path in items_of(_header(file), "OpticalPathSequence")[:1]:
            profile = value_of(optical_path, "ICCProfile")
            return profile if isinstance(profile, bytes) else None
    return None


def _header(file: BinaryIO) -> Dataset:
    try:
        return Dataset(read_partial(file, stop_when=_at_tiles, specific_tags=_TAGS))
    except MALFORMED:
        raise DicomError("the DICOM structure is broken or truncated") from None


def _at_tiles(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >= _PER_FRAME_GROUPS


def _objective_power(ds: Dataset) -> float | None:
    for path in items_of(ds, "OpticalPathSequence")[:1]:
        powers = all_numbers(path, "ObjectiveLensPower")
        if len(powers) == 1 and powers[0] > 0:
            return powers[0]
    return None
