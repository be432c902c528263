"""Takes fields out of a resource of unknown origin: what is not of the right kind is not there.

FHIR paths are followed one step at a time, and references never further than one resource, so a
resource that refers to itself costs no more than another.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from unicodedata import category

from osler.ingest.fhir.limits import MAX_ITEMS, MAX_TEXT
from osler.ingest.fhir.records import Coding, Concept, Quantity, When

Json = Mapping[str, Any]

UCUM = "http://unitsofmeasure.org"

_NUMBER = re.compile(r"[-+]?\d{1,30}(\.\d{1,30})?([eE][-+]?\d{1,2})?")
_WHEN = re.compile(
    r"(\d{4})(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII
)
_SPACES = re.compile(r"\s+")
_SHORT = 100
_NOTHING: dict[str, Any] = {}
_NO_CONCEPT = Concept("")

# How people call the terminologies whose codes are shown where there are no words.
SYSTEM_NAMES = {
    "http://loinc.org": "LOINC",
    "http://snomed.info/sct": "SNOMED CT",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RxNorm",
    "http://hl7.org/fhir/sid/cvx": "CVX",
    "http://hl7.org/fhir/sid/icd-10": "ICD-10",
    "http://hl7.org/fhir/sid/icd-10-cm": "ICD-10-CM",
    "http://hl7.org/fhir/sid/icd-9-cm": "ICD-9-CM",
    "http://hl7.org/fhir/sid/ndc": "NDC",
    "http://www.whocc.no/atc": "ATC",
    "http://www.ama-assn.org/go/cpt": "CPT",
}


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Put text on one line, without control characters, cut where it is far too long.

    >>> clean(" Dear\\r\\n colleague\\x1b[31m ")
    'Dear colleague\N{REPLACEMENT CHARACTER}[31m'
    """
    text = _one_line_of_short(text) if len(text) <= _SHORT else _one_line(text)
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text):,} characters in all)"


def _one_line(text: str) -> str:
    if not text.isprintable() or "  " in text:
        text = printable(_SPACES.sub(" ", text))
    return text.strip()


# A record says the same units, codes and names again and again.
_one_line_of_short = lru_cache(maxsize=4096)(_one_line)


def printable(text: str) -> str:
    """Text of characters that can be seen: others are marked, or gone where they have no width."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else "" if category(c) == "Cf" else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def string(value: Json, key: str) -> str:
    """A string on one line; "" where there is none."""
    found = value.get(key)
    if not isinstance(found, str):
        return ""
    return _one_line_of_short(found) if len(found) <= _SHORT else clean(found)


def child(value: Json, key: str) -> Json:
    """An object; an empty one where there is none."""
    found = value.get(key)
    return found if isinstance(found, dict) else _NOTHING


def children(value: Json, key: str) -> list[Json]:
    """The objects of a list; a lone object is a list of one, as careless senders write."""
    found = value.get(key)
    if isinstance(found, dict):
        return [found]
    if not isinstance(found, list):
        return []
    return [item for item in found[:MAX_ITEMS] if isinstance(item, dict)]


def strings(value: Json, key: str) -> tuple[str, ...]:
    """The strings of a list."""
    found = value.get(key)
    if not isinstance(found, list):
        return ()
    return tuple(clean(item) for item in found[:MAX_ITEMS] if isinstance(item, str))


def coding(value: Json) -> Coding:
    """A Coding."""
    return Coding(string(value, "system"), string(value, "code"), string(value, "display"))


def code_words(code: Coding) -> str:
    """A code in words: its display, or the code with the name of its terminology."""
    name = SYSTEM_NAMES.get(code.system, "")
    return code.display or " ".join(filter(None, (name, code.code)))


def concept(value: Json) -> Concept:
    """A CodeableConcept: its text, or the first words or code that its codings give."""
    if not value:
        return _NO_CONCEPT
    found = value.get("coding")
    if isinstance(found, list) and len(found) == 1 and isinstance(one := found[0], dict):
        fields = (value.get("text"), one.get("system"), one.get("code"), one.get("display"))
        try:
            return _concept_of_one(*fields)
        except TypeError:  # a list or an object in the place of a string
            pass
    codings = tuple([coding(item) for item in children(value, "coding")])
    return _concept(string(value, "text"), codings)


def _concept(text: str, codings: tuple[Coding, ...]) -> Concept:
    if not text:
        text = next((code.display for code in codings if code.display), "")
    if not text:
        text = next(filter(None, map(code_words, codings)), "")
    return Concept(text, codings)


@lru_cache(maxsize=2048, typed=True)
def _concept_of_one(text: object, system: object, code: object, display: object) -> Concept:
    """Most concepts have one coding, and a record has the same ones again and again."""
    said = [clean(found) if isinstance(found, str) else "" for found in (system, code, display)]
    return _concept(clean(text) if isinstance(text, str) else "", (Coding(*said),))


def forget() -> None:
    """Let go of the strings of a record that has been read."""
    _concept_of_one.cache_clear()
    _one_line_of_short.cache_clear()


def words(value: Json, key: str) -> str:
    """The words of a CodeableConcept."""
    return concept(child(value, key)).text


def words_of_all(value: Json, key: str) -> tuple[str, ...]:
    """The words of each CodeableConcept of a list, each once."""
    found = (concept(item).text for item in children(value, key))
    return tuple(dict.fromkeys(filter(None, found)))


def first_code(value: Json, key: str) -> str:
    """The code of a CodeableConcept, as of a status; its words where it has no code."""
    found = concept(child(value, key))
    return next((code.code for code in found.codings if code.code), found.text)


def number(value: object) -> str | None:
    """A JSON number as it was written; None where it is none, or is of absurd size.

    >>> number("4.10"), number(7), number("1e999"), number(True)
    ('4.10', '7', None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value) if -(10**30) < value < 10**30 else None
    return value if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def count(value: Json, key: str) -> int:
    """A whole number that is not negative; 0 where there is none."""
    found = value.get(key)
    return found if isinstance(found, int) and 0 <= found < 2**31 else 0


def quantity(value: Json) -> Quantity | None:
    """A Quantity; None where it has no number."""
    amount = number(value.get("value"))
    if amount is None:
        return None
    code = string(value, "code")
    comparator = string(value, "comparator")
    return Quantity(
        value=amount,
        unit=string(value, "unit") or code,
        code=code if value.get("system") == UCUM else "",
        comparator=comparator if comparator in ("<", "<=", ">=", ">") else "",
    )


def when(text: object) -> When | None:
    """A date, dateTime or instant; None where it is none.

    >>> when("2019-03").precision, when("2019-03-01T10:15:00-05:00").zone is None
    ('month', False)
    >>> when("2019-13-01"), when("soon")
    (None, None)
    """
    if not isinstance(text, str) or (match := _WHEN.fullmatch(text)) is None:
        return None
    full = text + ("-01-01", "-01", "")[bool(match[2]) + bool(match[3])]
    try:
        # FHIR allows a leap second; a clock of 60 seconds does not.
        point = datetime.fromisoformat(full.replace(":60", ":59"))
        epoch_s = (point if point.tzinfo else point.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return When(text, epoch_s)


def reference(value: Json) -> str:
    """Where a Reference points; "" where it does not."""
    found = value.get("reference")
    return clean(found) if isinstance(found, str) else ""


def references(value: Json, key: str) -> Iterator[str]:
    """Where each Reference of a list points."""
    yield from filter(None, map(reference, children(value, key)))
