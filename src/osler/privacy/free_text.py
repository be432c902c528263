"""Free text without what identifies: by what is known of the patient, then by recognisers."""

import re
from dataclasses import dataclass
from datetime import date

from osler.privacy.dates import moved_date
from osler.privacy.known import Known
from osler.privacy.profile import RetainDates
from osler.privacy.recognisers import (
    AGES,
    MONTHS,
    NAMES,
    NETWORK,
    NUMBERS,
    ORGANIZATIONS,
    PLACES,
    redact_given_names,
)

_MARK = "\N{WORD JOINER}"
_DAY, _YEAR = r"(?P<day>\d{1,2})", r"(?P<year>(?:19|20)\d{2})"
_MONTH = rf"(?P<name>{MONTHS})\.?"
_TH, _GAP = r"(?:st|nd|rd|th)?", r"[ .\-]{1,2}"
_CLOCK = r"(?=(?:[0-2]\d[0-5]\d(?:[0-5]\d)?)?(?!\d|-\d))"  # behind a date in digits only
_BIRTH = re.compile(
    r"(?:born|birth|birthdate|birthday|dob|d\.o\.b\.?)\W{0,3}(?:date)?\W{0,3}(?:on|is|in)?\W{0,3}$",
    re.IGNORECASE,
)
# The form of each, to write the moved date as the old one stood; "" where it is ambiguous.
_DATES = tuple(
    (re.compile(pattern, re.IGNORECASE), form)
    for pattern, form in (
        (rf"(?<![\d\-]){_YEAR}-(?P<month>\d\d)-(?P<day>\d\d)(?!\d)", "%Y-%m-%d"),
        (rf"(?<![\d/.]){_YEAR}(?P<s>[/.])(?P<month>\d{{1,2}})(?P=s){_DAY}(?!\d)", "%Y/%m/%d"),
        (rf"(?<!\d){_YEAR}(?P<month>0[1-9]|1[0-2])(?P<day>[0-3]\d){_CLOCK}", "%Y%m%d"),
        (rf"\b{_DAY}{_TH}{_GAP}(?:of[ ])?{_MONTH},?{_GAP}{_YEAR}\b", "%d %b %Y"),
        (rf"\b{_MONTH}{_GAP}{_DAY}{_TH},?{_GAP}{_YEAR}\b", "%b %d, %Y"),
        (r"(?<![\d/.\-])\d{1,2}(?P<s>[/.\-])\d{1,2}(?P=s)(?:(?:19|20)\d\d|\d\d)(?![\d/]|-\d)", ""),
        (rf"\b{_MONTH},?[ ]{_YEAR}\b", "%b %Y"),
        (rf"\b{_DAY}{_TH}[ ](?:of[ ])?{_MONTH}(?![\w])", ""),
        (rf"\b{_MONTH}[ ]{_DAY}{_TH}(?![\w/])", ""),
        (r"(?<=\bon )\d{1,2}/\d{1,2}(?![\d/])|(?<=\bsince )\d{1,2}/\d{1,2}(?![\d/])", ""),
        (r"(?<![\d/])(?:0?[1-9]|1[0-2])/(?:19|20)\d\d(?![\d/])", ""),
    )
)  # fmt: skip
_MONTH_NUMBERS = {name[:3]: number for number, name in enumerate(
    "jan feb mar apr may jun jul aug sep oct nov dec".split(), start=1
)}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextCleaner:
    """Cleans the texts of one patient.

    Attributes:
        known: who and what is known of the patient's files.
        retain_dates: what becomes of dates; those of births never stay.
        shift_days: by how much the patient's dates move.
    """

    known: Known
    retain_dates: RetainDates
    shift_days: int

    def clean(self, text: str) -> tuple[str, dict[str, int]]:
        """The text without what identifies, and how much of each kind there was.

        >>> cleaner = TextCleaner(known=Known(), retain_dates="modified", shift_days=-10)
        >>> cleaner.clean("Dr. Vance saw her on 2024-03-11, MRN 4471923.")[0]
        'Dr. [NAME] saw her on 2024-03-01, MRN [ID].'
        """
        counts: dict[str, int] = {}

        def count(kind: str, number: int) -> None:
            if number:
                counts[kind] = counts.get(kind, 0) + number

        for recogniser in NETWORK:
            text, number = recogniser.redact(text)
            count(recogniser.kind, number)
        text, number = self.known.redact(text)
        count("KNOWN", number)
        text, number = self._redact_dates(text)
        count("DATE", number)
        for recogniser in (*NUMBERS, *AGES, *PLACES, *ORGANIZATIONS):
            text, number = recogniser.redact(text)
            count(recogniser.kind, number)
        names: list[str] = []
        for recogniser in NAMES:
            names += recogniser.found_in(text)
            text, number = recogniser.redact(text)
            count(recogniser.kind, number)
        # Who is named with a title once may be without it elsewhere.
        text, number = Known(names, capitals_only=True).redact(text)
        count("NAME", number)
        text, number = redact_given_names(text)
        count("NAME", number)
        return text.replace(_MARK, ""), counts

    def _redact_dates(self, text: str) -> tuple[str, int]:
        total = 0
        for pattern, form in _DATES:
            pieces: list[str] = []
            end = 0
            for match in pattern.finditer(text):
                is_birth = _BIRTH.search(text, max(0, match.start() - 40), match.start())
                if self.retain_dates == "full" and not is_birth:
                    continue
                stands = "[DATE]" if is_birth else self._moved(match, form)
                pieces += [text[end : match.start()], stands]
                end = match.end()
                total += 1
            text = "".join(pieces) + text[end:]
        return text, total

    def _moved(self, match: re.Match[str], form: str) -> str:
        if self.retain_dates != "modified" or not form:
            return "[DATE]"
        found = match.groupdict()
        month = int(found["month"]) if "month" in found else _month(found["name"])
        day = int(found["day"]) if "day" in found else None
        moved = moved_date(int(found["year"]), month, day, self.shift_days)
        return "[DATE]" if moved is None else _marked(moved, form)


def _marked(moved: date, form: str) -> str:
    """A date with marks within, which keep the other patterns away from it."""
    return _MARK.join(moved.strftime(form))


def _month(name: str) -> int:
    return _MONTH_NUMBERS[name[:3].lower()]
