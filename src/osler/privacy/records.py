"""What the reading process asks of a worker, and what it is told."""

from typing import Literal

import msgspec

from osler.privacy.fhir_people import People
from osler.privacy.profile import RetainDates

Kind = Literal["dicom", "fhir", "text", "dicomdir"]


class Asked(msgspec.Struct):
    """How a file is to be cleaned.

    Attributes:
        key: as hex digits.
        retain_dates: as `Profile` has it, and so the next two.
        people: who is in the other files of the run, for records and texts; None to have a file
            looked at: a DICOM object is cleaned at once, of others it is said who is in them.
    """

    key: str
    retain_dates: RetainDates
    retain_characteristics: bool
    clean_pixels: bool
    people: People | None = None


class Told(msgspec.Struct):
    """What became of a file, which comes with it if it was cleaned.

    Attributes:
        kind: what it is.
        place: of a DICOM object: patient, study, series, instance, all of them pseudonyms.
        are_lines: whether a record is of lines.
        people: who is in it, for the other files of the run.
        actions: what was done, by action and place.
    """

    kind: Kind
    place: tuple[str, ...] = ()
    are_lines: bool = False
    people: People = msgspec.field(default_factory=People)
    actions: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
