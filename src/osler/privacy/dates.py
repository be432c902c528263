"""Dates moved by whole days, as precise as they were and in the form that they had."""

import re
from datetime import date, timedelta

_DICOM = re.compile(r"(\d{4})(\d{2})?(\d{2})?(.*)", re.DOTALL)
_OLD_DICOM = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})")
# A date, dateTime or instant of FHIR; the time stays, as dates move by whole days.
_FHIR = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(T.*)?)?)?")
_MIDDLE_DAY, _MIDDLE_MONTH = 15, 7


def moved_date(year: int, month: int | None, day: int | None, days: int) -> date | None:
    """The day, or the middle of the month or year, moved; None where there is no such day."""
    try:
        start = date(year, month or _MIDDLE_MONTH, day or _MIDDLE_DAY)
        return start + timedelta(days=days)
    except (ValueError, OverflowError):
        return None


def shift_dicom(value: str, days: int) -> str | None:
    """Move a value of VR DA or DT.

    >>> shift_dicom("20240301", -1), shift_dicom("20240301120000.5+0100", -60)
    ('20240229', '20240101120000.5+0100')

    Returns:
        None where it is no date.
    """
    text = value.strip()
    if old := _OLD_DICOM.fullmatch(text):
        text = "".join(old.groups())
    match = _DICOM.fullmatch(text)
    if match is None:
        return None
    year, month, day, rest = match.groups()
    moved = moved_date(int(year), int(month or 0), int(day or 0), days)
    if moved is None or not re.fullmatch(r"[\d.+\-]*", rest):
        return None
    digits = 4 + 2 * bool(month) + 2 * bool(day)
    return f"{moved:%Y%m%d}".rjust(8, "0")[:digits] + rest


def is_fhir_date(value: str) -> bool:
    """Whether a string is a date of FHIR with a month at least."""
    match = _FHIR.fullmatch(value)
    return match is not None and match[2] is not None


def shift_fhir(value: str, days: int) -> str | None:
    """Move a date, dateTime or instant; a year alone may become the year before.

    >>> shift_fhir("2024-03-01T08:00:00+01:00", -1), shift_fhir("2024-03", -31), shift_fhir("x", 1)
    ('2024-02-29T08:00:00+01:00', '2024-02', None)

    Returns:
        None where it is no date.
    """
    match = _FHIR.fullmatch(value)
    if match is None:
        return None
    year, month, day, time = match.groups()
    moved = moved_date(int(year), int(month or 0), int(day or 0), days)
    if moved is None:
        return None
    return moved.isoformat()[: 4 + 3 * bool(month) + 3 * bool(day)] + (time or "")
