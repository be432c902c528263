"""What is asked for: the Basic Profile with some of its options, from the standard's own table."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Literal

# Years; who is older is too rare for the age to stay (45 CFR 164.514(b)(2)(i)(C)).
OLDEST_AGE = 89
_DATES = frozenset(("DA", "DT", "TM"))

# CID 7050, De-identification Method.
_BASIC = ("113100", "Basic Application Confidentiality Profile")
_CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
_CLEAN_CONTENT = ("113104", "Clean Structured Content Option")
_FULL_DATES = ("113106", "Retain Longitudinal Temporal Information Full Dates Option")
_MODIFIED_DATES = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
_CHARACTERISTICS = ("113108", "Retain Patient Characteristics Option")

RetainDates = Literal["none", "modified", "full"]


class Action(StrEnum):
    """What becomes of an attribute."""

    KEEP = "keep"
    REMOVE = "remove"
    EMPTY = "empty"
    DUMMY = "dummy"
    NEW_UID = "new UID"
    SHIFT = "shift"
    CLEAN = "clean"
    CLEAN_ITEMS = "clean items"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The Basic Profile and its options.

    Attributes:
        retain_dates: "none" removes them, "modified" moves all of a patient's by the same number
            of days, "full" keeps them.
        retain_characteristics: keep sex, age, size, weight and the like.
        clean_pixels: find text in the pixels and black it out.

    Source: PS3.15 sections E.2 and E.3.
    """

    retain_dates: RetainDates = "none"
    retain_characteristics: bool = False
    clean_pixels: bool = True

    @property
    def codes(self) -> tuple[tuple[str, str], ...]:
        """Code value and meaning of each profile and option that was applied."""
        chosen = [
            (_BASIC, True),
            (_CLEAN_PIXELS, self.clean_pixels),
            (_CLEAN_CONTENT, True),
            (_FULL_DATES, self.retain_dates == "full"),
            (_MODIFIED_DATES, self.retain_dates == "modified"),
            (_CHARACTERISTICS, self.retain_characteristics),
        ]
        return tuple(code for code, applies in chosen if applies)

    def action(self, tag: int, vr: str) -> Action:
        """What becomes of an attribute of the data dictionary.

        Of actions that depend on the attribute's type in its IOD, as "X/Z/D", the one that every
        type allows is taken.

        Args:
            tag: group and element as one number.
            vr: its value representation.
        """
        row = _table().get(tag)
        if row is None:
            # The table names all dates of the standard; this is for what comes after it.
            return Action.REMOVE if vr in _DATES else Action.KEEP
        basic, patient, full_dates, modified_dates, structured = row
        if self.retain_dates == "full" and full_dates == "K":
            return Action.KEEP
        if self.retain_dates == "modified" and modified_dates == "C":
            return Action.SHIFT if vr in _DATES else Action.CLEAN
        if self.retain_characteristics and patient:
            return Action.KEEP if patient == "K" else Action.CLEAN
        if structured == "C" and basic == "D":
            return Action.CLEAN_ITEMS
        return _strictest(basic, vr)


def _strictest(basic: str, vr: str) -> Action:
    last = basic.rpartition("/")[2]
    if last == "U*" or (vr == "SQ" and last == "D"):
        return Action.CLEAN_ITEMS
    return {
        "X": Action.REMOVE,
        "Z": Action.EMPTY,
        "D": Action.DUMMY,
        "U": Action.NEW_UID,
    }[last]


def standard_tags() -> tuple[int, ...]:
    """The attributes of table E.1-1, without its repeating groups."""
    return tuple(_table())


@cache
def _table() -> dict[int, tuple[str, str, str, str, str]]:
    """Table E.1-1 by tag, without its repeating groups (50xx, 60xx), which are removed whole."""
    text = files(__package__).joinpath("table_e1_1.tsv").read_text("ascii")
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    names = lines[0]
    wanted = [
        names.index(name)
        for name in ("basic", "patient", "full_dates", "modified_dates", "structured")
    ]
    table = {}
    for row in lines[1:]:
        if "x" not in row[0]:
            basic, patient, full, modified, structured = (row[column] for column in wanted)
            table[int(row[0], 16)] = (basic, patient, full, modified, structured)
    return table
