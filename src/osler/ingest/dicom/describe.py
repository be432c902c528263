"""A DICOM object's facts: what it is, when, and where its frames lie; nothing of the patient."""

import hashlib
import math
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar, cast

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage

from osler.errors import DicomError, UnsupportedError
from osler.ingest.dicom.attributes import MALFORMED, all_numbers, integer, items_of, value_of
from osler.ingest.dicom.dataset import read_header
from osler.ingest.dicom.glass import refuse_glass
from osler.ingest.dicom.pixel_header import number_of_frames
from osler.ingest.dicom.reader import modality_of
from osler.ingest.dicom.suv import SUV_ATTRIBUTES, suv_per_unit
from osler.ingest.facts import FileFacts, FrameFacts, Pose, Vector
from osler.ingest.limits import MAX_FILES, check_size

KEYWORDS: tuple[str | int, ...] = (
    *"""
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID SeriesNumber
    StudyDate StudyTime PatientID IssuerOfPatientID
    Modality ImageType BodyPartExamined ViewPosition Laterality ImageLaterality ContrastBolusAgent
    ContrastBolusAgentSequence BurnedInAnnotation ConversionType
    Rows Columns NumberOfFrames SamplesPerPixel
    ImagePositionPatient ImageOrientationPatient PixelSpacing ImagerPixelSpacing
    SliceThickness SpacingBetweenSlices DetectorInformationSequence
    AcquisitionNumber InstanceNumber TemporalPositionIdentifier
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
    DirectoryRecordSequence SpecimenLabelInImage
""".split(),
    *SUV_ATTRIBUTES,
)

# Objects with pixels, or none, that are not for the eye alone.
_NO_PICTURES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "DOC", "REG", "FID")
_UNIT_TOLERANCE = 0.01

T = TypeVar("T")


def describe_dicom(data: bytes, *, whole: bool) -> FileFacts | None:
    """Say what a DICOM object holds.

    Args:
        data: the file, or its beginning.
        whole: False where it is only the beginning.

    Returns:
        None where the beginning does not reach to the pixels.

    Raises:
        DicomError: malformed, or without pixels.
        UnsupportedError: not an image, a whole slide, or too large.
    """
    try:
        ds, complete = read_header(data, KEYWORDS)
    except DicomError:
        if whole:
            raise
        return None
    if not complete and not whole:
        return None
    if "DirectoryRecordSequence" in ds:
        return FileFacts(kind="dicomdir", members=_members(ds))
    modality = modality_of(ds)
    if modality in _NO_PICTURES:
        raise UnsupportedError(f"a DICOM object of modality {modality}, not an image")
    if not complete or "Rows" not in ds:
        raise DicomError("a DICOM object without pixel data")
    rows, columns = integer(ds, "Rows"), integer(ds, "Columns")
    check_size(rows, columns)
    count = number_of_frames(ds)
    refuse_glass(ds)
    if modality == "SM" and count > 1:
        raise UnsupportedError("a whole slide, which is read from a file of its own, not a zip")
    return object_facts(ds, modality, rows, columns, count)


def object_facts(
    ds: Dataset, modality: str | None, rows: int, columns: int, count: int
) -> FileFacts:
    """What an object with pixels says of itself.

    Args:
        ds: with the attributes of `KEYWORDS`.
        modality: of the object.
        rows: height of each frame in pixels.
        columns: width.
        count: how many frames there are.

    Raises:
        DicomError: malformed.
    """
    shared = next(iter(items_of(ds, "SharedFunctionalGroupsSequence")), Dataset())
    own = items_of(ds, "PerFrameFunctionalGroupsSequence")[:count]
    first = own[0] if own else Dataset()
    measures = _macro(ds, first, shared, "PixelMeasuresSequence")
    anatomy = _macro(ds, first, shared, "FrameAnatomySequence")
    image_type = [str(part) for part in _many(ds, "ImageType")]
    burned_in = _soft(ds, "BurnedInAnnotation", str)
    return FileFacts(
        kind="dicom",
        rows=rows,
        columns=columns,
        frames=_frames(ds, own, shared, count),
        modality=modality,
        study=_uid(ds, "StudyInstanceUID"),
        series=_uid(ds, "SeriesInstanceUID"),
        instance=_uid(ds, "SOPInstanceUID"),
        patient=_patient(ds),
        moment=_moment(ds),
        series_number=_soft(ds, "SeriesNumber", int) or 0,
        body_part=_code(ds, "BodyPartExamined"),
        laterality=_laterality(ds, anatomy),
        has_contrast=bool(
            _soft(ds, "ContrastBolusAgent", str) or items_of(ds, "ContrastBolusAgentSequence")
        ),
        pixel_spacing_mm=_pair(measures, "PixelSpacing") or _pair(ds, "ImagerPixelSpacing"),
        slice_thickness_mm=_positive(measures, "SliceThickness"),
        is_localizer="LOCALIZER" in image_type,
        view_position=_code(ds, "ViewPosition"),
        burned_in_text={"YES": True, "NO": False}.get(burned_in or ""),
        is_capture=_soft(ds, "SOPClassUID", str) == SecondaryCaptureImageStorage,
        suv_per_unit=suv_per_unit(ds) if modality == "PT" else None,
        units=_code(ds, "Units") if modality == "PT" else None,
    )


def _frames(ds: Dataset, own: list[Dataset], shared: Dataset, count: int) -> tuple[FrameFacts, ...]:
    if count == 1 and not own:
        order = [
            _soft(ds, keyword, int) or 0 for keyword in ("AcquisitionNumber", "InstanceNumber")
        ]
        return (FrameFacts(pose=_pose(ds, ds), order=tuple(order)),)
    if not own:
        return _nuclear_frames(ds, count)
    if len(own) != count:
        raise DicomError(f"{count} frames, and what is said of {len(own)}")
    frames = []
    for number, group in enumerate(own):
        content = _macro(ds, group, shared, "FrameContentSequence")
        time = _soft(content, "TemporalPositionIndex", int) or 0
        pose = _pose(
            _macro(ds, group, shared, "PlanePositionSequence"),
            _macro(ds, group, shared, "PlaneOrientationSequence"),
        )
        frames.append(FrameFacts(pose=pose, order=(time, number)))
    return tuple(frames)


def _nuclear_frames(ds: Dataset, count: int) -> tuple[FrameFacts, ...]:
    """Frames of an object without groups: a clip, or the slices of a tomogram (PS3.3 C.8.4.11)."""
    detector = next(iter(items_of(ds, "DetectorInformationSequence")), None)
    is_tomogram = "RECON TOMO" in [str(part) for part in _many(ds, "ImageType")]
    step = _numbers(ds, "SpacingBetweenSlices", 1)
    start = _pose(detector, detector) if detector is not None and is_tomogram else None
    if start is None or step is None:
        return tuple(FrameFacts(order=(number,)) for number in range(count))
    normal = np.cross(start.row, start.column)
    frames = []
    for number in range(count):
        x, y, z = (np.array(start.position_mm) + normal * step[0] * number).tolist()
        pose = Pose(position_mm=(x, y, z), row=start.row, column=start.column)
        frames.append(FrameFacts(pose=pose, order=(number,)))
    return tuple(frames)


def _pose(position_in: Dataset, orientation_in: Dataset) -> Pose | None:
    position = _numbers(position_in, "ImagePositionPatient", 3)
    orientation = _numbers(orientation_in, "ImageOrientationPatient", 6)
    if position is None or orientation is None:
        return None
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) == 0 or abs(row @ column) > _UNIT_TOLERANCE * lengths[0] * lengths[1]:
        return None
    return Pose(
        position_mm=cast(Vector, tuple(position)),
        row=cast(Vector, tuple((row / lengths[0]).tolist())),
        column=cast(Vector, tuple((column / lengths[1]).tolist())),
    )


def _macro(ds: Dataset, own: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """As `functional_group`, without going through all frames for each."""
    for group in (own, shared):
        for item in items_of(group, keyword)[:1]:
            return item
    return ds


def _members(ds: Dataset) -> tuple[str, ...]:
    """The image files that a DICOMDIR lists (PS3.3 F.3.2.2, PS3.10 8.2)."""
    members = []
    for record in items_of(ds, "DirectoryRecordSequence"):
        parts = [str(part) for part in _many(record, "ReferencedFileID")]
        if not parts:
            continue
        if any(part in ("", ".", "..") or set(part) & set("/\\:\0") for part in parts):
            raise DicomError("the DICOMDIR lists a file outside of its folder")
        members.append(str(PurePosixPath(*parts)))
    if len(members) > MAX_FILES:
        raise UnsupportedError(f"the DICOMDIR lists more than {MAX_FILES:,} files")
    return tuple(members)


def _patient(ds: Dataset) -> str:
    """A digest that is the same for the same patient and says nothing else."""
    identity = [_soft(ds, keyword, str) or "" for keyword in ("IssuerOfPatientID", "PatientID")]
    if not identity[1].strip():
        return ""
    return hashlib.sha256("\0".join(part.strip() for part in identity).encode()).hexdigest()


def _moment(ds: Dataset) -> str:
    date = (_soft(ds, "StudyDate", str) or "").replace(".", "")
    time = (_soft(ds, "StudyTime", str) or "").replace(":", "")[:6]
    if not re.fullmatch(r"[0-9]{8}", date):
        return ""
    return date + (time if re.fullmatch(r"[0-9]{6}", time) else "")


def _laterality(ds: Dataset, anatomy: Dataset) -> Literal["R", "L", "B"] | None:
    for group, keyword in (
        (anatomy, "FrameLaterality"),
        (ds, "ImageLaterality"),
        (ds, "Laterality"),
    ):
        side = _soft(group, keyword, str)
        if side in ("R", "L", "B"):
            return cast(Literal["R", "L", "B"], side)
    return None


def _uid(ds: Dataset, keyword: str) -> str:
    value = _soft(ds, keyword, str) or ""
    return value if UID(value).is_valid else ""


def _code(ds: Dataset, keyword: str) -> str | None:
    value = _soft(ds, keyword, str) or ""
    return value if re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) else None


def _pair(ds: Dataset, keyword: str) -> tuple[float, float] | None:
    numbers = _numbers(ds, keyword, 2)
    return (numbers[0], numbers[1]) if numbers and min(numbers) > 0 else None


def _positive(ds: Dataset, keyword: str) -> float | None:
    numbers = _numbers(ds, keyword, 1)
    return numbers[0] if numbers and numbers[0] > 0 else None


def _numbers(ds: Dataset, keyword: str, count: int) -> list[float] | None:
    """So many finite numbers, or None: a fact that is malformed is not known."""
    try:
        numbers = all_numbers(ds, keyword)
    except DicomError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _soft(ds: Dataset, keyword: str, kind: Callable[[Any], T]) -> T | None:
    try:
        value = value_of(ds, keyword)
        return None if value is None else kind(value)
    except (DicomError, *MALFORMED):
        return None


def _many(ds: Dataset, keyword: str) -> list[Any]:
    try:
        value = value_of(ds, keyword)
        if value is None:
            return []
        return [value] if isinstance(value, str) else list(value)
    except (DicomError, *MALFORMED):
        return []
