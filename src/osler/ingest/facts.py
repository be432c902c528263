"""What a file says of its images, without their pixels: what a worker tells of each file."""

from dataclasses import dataclass, field
from typing import Literal

Vector = tuple[float, float, float]
Box = tuple[float, float, float, float]  # left, top, width, height


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a frame lies in the patient, in the patient's coordinates (LPS).

    Attributes:
        position_mm: centre of the first pixel.
        row: unit vector along a row, to where columns increase.
        column: unit vector down a column, to where rows increase.

    Source: PS3.3 C.7.6.2.1.1.
    """

    position_mm: Vector
    row: Vector
    column: Vector


@dataclass(frozen=True, kw_only=True)
class FrameFacts:
    """One frame of a file.

    Attributes:
        pose: None where the file does not say.
        order: which of the frames at one place came first.
    """

    pose: Pose | None = None
    order: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SlideFacts:
    """What a whole slide, or one level of it, says of itself.

    Attributes:
        reader: the library that reads it.
        bounds_px: what was scanned, in pixels of the largest level: left, top, width, height.
        mpp: micrometres per pixel of the largest level along a row and down a column.
        objective_power: of the scanner's lens.
        files: of a DICOM pyramid the files of each level, the largest first; else one file.
    """

    reader: Literal["openslide", "wsidicom"]
    bounds_px: tuple[int, int, int, int]
    mpp: tuple[float, float] | None = None
    objective_power: float | None = None
    files: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """One file with images, or a DICOMDIR.

    Attributes:
        kind: what it is; a "dicomdir" has `members` and nothing else.
        rows: height of each frame in pixels.
        columns: width.
        frames: one entry a frame, as they are stored.
        modality: DICOM Modality; None where nothing says it.
        modality_is_guessed: from the values of a NIfTI file, which does not say.
        study: Study Instance UID, as `series` and `instance` its own; "" where there is none.
        patient: a digest that tells patients apart; "" where there is no patient ID.
        moment: study date and time, "YYYYMMDD" or "YYYYMMDDHHMMSS"; "" where there is none.
        series_number: for the order in which series are listed.
        body_part: Body Part Examined.
        laterality: "R", "L" or "B".
        view_position: of a radiograph: AP, PA, LL, CC, MLO.
        has_contrast: whether a contrast agent is named.
        pixel_spacing_mm: between rows and between columns.
        slice_thickness_mm: as the scanner gives it.
        is_localizer: a scout, by its image type.
        burned_in_text: what the object itself says; None where it says nothing.
        is_capture: a secondary capture: a screen, a scanned film, a photograph.
        units: of a PET's values, as DICOM codes them.
        suv_per_unit: body-weight SUV of one unit of a PET's values, where it can be known.
        volumes: how many volumes a NIfTI file holds; the frames are the first one's.
        members: of a DICOMDIR: the files it lists, as paths from its folder.
        slide: of a whole slide, whose `rows` and `columns` are those of its largest level.
    """

    kind: Literal["dicom", "picture", "nifti", "dicomdir", "slide"]
    rows: int = 0
    columns: int = 0
    frames: tuple[FrameFacts, ...] = ()
    modality: str | None = None
    modality_is_guessed: bool = False
    study: str = field(default="", repr=False)
    series: str = field(default="", repr=False)
    instance: str = field(default="", repr=False)
    patient: str = field(default="", repr=False)
    moment: str = field(default="", repr=False)
    series_number: int = 0
    body_part: str | None = None
    laterality: Literal["R", "L", "B"] | None = None
    view_position: str | None = None
    has_contrast: bool = False
    pixel_spacing_mm: tuple[float, float] | None = None
    slice_thickness_mm: float | None = None
    is_localizer: bool = False
    burned_in_text: bool | None = None
    is_capture: bool = False
    units: str | None = None
    suv_per_unit: float | None = None
    volumes: int = 1
    members: tuple[str, ...] = ()
    slide: SlideFacts | None = None
