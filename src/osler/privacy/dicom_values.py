"""Values that stand for nothing, by value representation."""

import re
from typing import Any

from pydicom import DataElement

# What a required attribute holds instead of its value; the dates are none that anybody was seen on.
_DUMMIES: dict[str, Any] = {
    "AE": "ANON",
    "AS": "000Y",
    "AT": 0,
    "CS": "ANON",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "LO": "ANON",
    "LT": "ANON",
    "PN": "ANON",
    "SH": "ANON",
    "ST": "ANON",
    "TM": "000000",
    "UC": "ANON",
    "UR": "urn:ANON",
    "UT": "ANON",
    "FL": 0.0,
    "FD": 0.0,
    "SL": 0,
    "SS": 0,
    "SV": 0,
    "UL": 0,
    "US": 0,
    "UV": 0,
}
_TWO_ZEROS = b"\0\0"

TEXT_VRS = frozenset(("AE", "AS", "CS", "DS", "IS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"))
LONG_TEXT_VRS = frozenset(("LT", "ST", "UC", "UT"))
ANONYMOUS = "ANON"
# Codes that an object cannot do without, also where somebody is called "Text" or "Ng".
STRUCTURAL = frozenset(
    """
    AR AU BI BMD CFM CR CT DG DX ECG EEG EM EMG EOG EPS ES FID GM HC HD IO IVOCT IVUS KER KO LEN LP
    LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PLAN POS PR PT PX RESP RF RG RTDOSE
    RTIMAGE RTPLAN RTRECORD RTSTRUCT RWV SC SEG SM SMR SR SRF STAIN TG US VA XA XC
    TEXT NUM CODE PNAME DATE TIME DATETIME UIDREF IMAGE COMPOSITE WAVEFORM SCOORD SCOORD3D TCOORD
    CONTAINER TABLE CONTAINS HAS CONTINUOUS SEPARATE COMPLETE PARTIAL VERIFIED UNVERIFIED
    MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_ICT YBR_RCT ORIGINAL DERIVED PRIMARY
    SECONDARY YES NO POINT POLYLINE
""".split()
) | frozenset(("PALETTE COLOR", "HAS PROPERTIES", "HAS OBS CONTEXT", "HAS CONCEPT MOD"))


_FORMS = {
    "AS": re.compile(r"\d{3}[DWMY]"),
    "DA": re.compile(r"[\d.]{4,10}"),
    "DS": re.compile(r"[\d.+\-eE]{1,16}"),
    "DT": re.compile(r"[\d.+\-]{4,26}"),
    "IS": re.compile(r"[\d+\-]{1,12}"),
    "TM": re.compile(r"[\d.:]{2,14}"),
}


def has_form(element: DataElement) -> bool:
    """Whether a number, date or time is one; pydicom lets words pass, which may be a name.

    Source: PS3.5 section 6.2.
    """
    form = _FORMS.get(element.VR)
    if form is None or element.is_empty:
        return True
    values = element.value if element.VM > 1 else [element.value]
    return all(form.fullmatch(str(value).strip()) for value in values if value not in ("", None))


def dummy(vr: str) -> Any:
    """A value of a representation that says nothing."""
    return _DUMMIES.get(vr, _TWO_ZEROS)


def empty(vr: str) -> Any:
    """No value."""
    return [] if vr == "SQ" else None
