"""Synthetic series: a body of simple shapes, cut in any direction, with nobody in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset, uid
from pydicom.encaps import encapsulate

from osler.testing.dicom import Samples, encode_frame, make_dicom

Vector = tuple[float, float, float]
Orientation = tuple[Vector, Vector]

AXIAL: Orientation = ((1, 0, 0), (0, 1, 0))
CORONAL: Orientation = ((1, 0, 0), (0, 0, -1))
SAGITTAL: Orientation = ((0, 1, 0), (0, 0, -1))

STUDY_UID = "2.25.1000"
SERIES_UID = "2.25.2000"


@dataclass(frozen=True)
class Slice:
    """One slice of the body.

    Attributes:
        hu: int16 (S, S), Hounsfield units.
        position_mm: centre of its first pixel.
    """

    hu: NDArray[np.int16]
    position_mm: Vector


def slices(
    count: int,
    *,
    orientation: Orientation = AXIAL,
    spacing_mm: float = 2.0,
    shear_mm: float = 0.0,
    side_px: int = 32,
) -> list[Slice]:
    """Cut the body, each slice further along row x column than the one before.

    Args:
        count: how many.
        orientation: directions of rows and columns.
        spacing_mm: along the normal.
        shear_mm: how far each slice is moved down its columns against the one before, as by a
            gantry that is tilted.
        side_px: of the square; pixels are 400 mm / side.
    """
    row, column = np.array(orientation, dtype=float)
    normal = np.cross(row, column)
    pixel_mm = 400 / side_px
    middle = (np.arange(side_px) - (side_px - 1) / 2) * pixel_mm
    cut = []
    for number in range(count):
        along = (number - (count - 1) / 2) * spacing_mm
        origin = normal * along + row * middle[0] + column * (middle[0] + shear_mm * number)
        points = (
            origin
            + row * (middle - middle[0])[np.newaxis, :, np.newaxis]
            + column * (middle - middle[0])[:, np.newaxis, np.newaxis]
        )
        x, y, z = origin.tolist()
        cut.append(Slice(_body_hu(points), (x, y, z)))
    return cut


def _body_hu(points_HW3: NDArray[np.float64]) -> NDArray[np.int16]:
    """Air, a trunk, two lungs, a spine and a liver on the patient's right; LPS in mm."""
    x, y, z = np.moveaxis(points_HW3, -1, 0)
    hu = np.full(x.shape, -1000, np.int16)
    hu[(x / 160) ** 2 + (y / 110) ** 2 + (z / 300) ** 2 < 1] = 40
    for side in (-1, 1):
        lung = ((x - side * 75) / 55) ** 2 + (y / 75) ** 2 + ((z - 60) / 120) ** 2 < 1
        hu[lung] = -800
    hu[((x + 70) / 70) ** 2 + (y / 70) ** 2 + ((z + 110) / 60) ** 2 < 1] = 60
    hu[(x**2 + (y - 80) ** 2 < 18**2) & (np.abs(z) < 250)] = 700
    return hu


def make_series(
    cut: Sequence[Slice],
    *,
    orientation: Orientation = AXIAL,
    instance_numbers: Iterable[int] | None = None,
    uid_root: str = "2.25.3000",
    **attributes: Any,
) -> list[bytes]:
    """Write slices as CT objects of one frame each.

    Args:
        cut: the slices.
        orientation: as they were cut.
        instance_numbers: as the scanner counts; 1, 2, 3 by default.
        uid_root: what their instance UIDs begin with.
        attributes: of every object, as `make_dicom` takes them.
    """
    numbers = range(1, len(cut) + 1) if instance_numbers is None else instance_numbers
    return [
        _with_tags(one.hu, one.position_mm, orientation, f"{uid_root}.{place}", number, attributes)
        for place, (one, number) in enumerate(zip(cut, numbers, strict=True), start=1)
    ]


def _with_tags(
    hu: NDArray[np.int16],
    position_mm: Vector,
    orientation: Orientation,
    instance_uid: str,
    number: int,
    attributes: dict[str, Any],
) -> bytes:
    tags: dict[str, Any] = {
        "Modality": "CT",
        "SOPClassUID": uid.CTImageStorage,
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": SERIES_UID,
        "SOPInstanceUID": instance_uid,
        "InstanceNumber": number,
        "ImagePositionPatient": list(position_mm),
        "ImageOrientationPatient": [*orientation[0], *orientation[1]],
        "PixelSpacing": [400 / hu.shape[0], 400 / hu.shape[1]],
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    return make_dicom(hu, **(tags | attributes))


def make_enhanced(
    cut: Sequence[Slice],
    *,
    orientation: Orientation = AXIAL,
    syntax: str = uid.ExplicitVRLittleEndian,
    slope: float = 2.0,
    **attributes: Any,
) -> bytes:
    """Write slices as the frames of one enhanced object, which rescales each by itself.

    Args:
        cut: the slices.
        orientation: as they were cut.
        syntax: transfer syntax UID.
        slope: of the rescaling; the intercept is the frame's number, from 1.
        attributes: as `make_dicom` takes them.
    """
    shared, own = Dataset(), []
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[*sum(orientation, ())])]
    side = 400 / cut[0].hu.shape[0]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[side, side], SliceThickness=2)]
    for number, one in enumerate(cut, start=1):
        group = Dataset()
        group.PlanePositionSequence = [_item(ImagePositionPatient=list(one.position_mm))]
        group.PixelValueTransformationSequence = [
            _item(RescaleSlope=slope, RescaleIntercept=number, RescaleType="HU")
        ]
        own.append(group)
    tags: dict[str, Any] = {
        "Modality": "CT",
        "SOPClassUID": uid.EnhancedCTImageStorage,
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": SERIES_UID,
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": own,
    }
    return make_frames([one.hu for one in cut], syntax=syntax, **(tags | attributes))


def make_frames(
    stored: Sequence[Samples], *, syntax: str = uid.ExplicitVRLittleEndian, **attributes: Any
) -> bytes:
    """Write frames into one object, as an ultrasound clip has them; otherwise as `make_dicom`."""
    bits = 8 * stored[0].dtype.itemsize
    frames = [encode_frame(one, syntax, bits) for one in stored]
    if uid.UID(syntax).is_encapsulated:
        value, vr = encapsulate(frames), "OB"
    else:
        value, vr = b"".join(frames), "OW" if bits > 8 else "OB"
    pixels = DataElement(
        "PixelData", vr, value, is_undefined_length=uid.UID(syntax).is_encapsulated
    )
    tags: dict[str, Any] = {"NumberOfFrames": len(stored), "PixelData": pixels} | attributes
    return make_dicom(stored[0], syntax=syntax, **tags)


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
