"""Takes fields out of a resource of unknown origin: what is not of the right kind is not there.

An object is its fields, each still the bytes of its JSON, and only what is asked for is decoded. A
record says the same codes, units and dates again and again: what short bytes were read as is
remembered, and read once. FHIR paths are followed one step at a time, and references never further
than one resource, so a resource that refers to itself costs no more than another.
"""

import re
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar
from unicodedata import category

import msgspec
from msgspec import Raw

from osler.ingest.fhir.limits import MAX_ITEMS, MAX_TEXT
from osler.ingest.fhir.records import Coding, Concept, Quantity, When

_In = TypeVar("_In", bound=Hashable)
_T = TypeVar("_T")
Json = Mapping[str, Raw]

UCUM = "http://unitsofmeasure.org"

_NUMBER = re.compile(r"[-+]?\d{1,30}(\.\d{1,30})?([eE][-+]?\d{1,2})?")
_WHEN = re.compile(
    r"(\d{4})(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII
)
_ID = re.compile(rb'"[A-Za-z0-9.-]{1,64}"')  # FHIR R4, datatypes, id
_SPACES = re.compile(r"\s+")
_COMPARATORS = frozenset(("<", "<=", ">=", ">"))
_NULL = b"null"
_BOOLEANS = {b"true": True, b"false": False}

# What JSON that is none raises.
MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_object = msgspec.json.Decoder(dict[str, Raw])
_list = msgspec.json.Decoder(list[Raw])
_string = msgspec.json.Decoder(str)

# What is remembered takes some megabytes at most.
_MOST_REMEMBERED = 4096
_SHORT_BYTES = 512
_forgetters: list[Callable[[], None]] = []

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


def remembering(read: Callable[[_In], _T]) -> Callable[[_In], _T]:
    """The same function, which is not asked twice about the same until `forget`."""
    remembered = lru_cache(_MOST_REMEMBERED)(read)
    _forgetters.append(remembered.cache_clear)
    return remembered


def remembering_short(read: Callable[..., _T]) -> Callable[..., _T]:
    """The same for a reader of JSON, of which it is not asked twice about what is short."""
    remembered = remembering(read)

    def read_short(*said: bytes) -> _T:
        is_short = sum(map(len, said)) <= _SHORT_BYTES
        return remembered(*said) if is_short else read(*said)

    return read_short


def field(read: Callable[[bytes], _T]) -> Callable[[Json, str], _T]:
    """Make a reader of fields of a reader of JSON.

    Args:
        read: takes valid JSON in UTF-8. What it makes of null is what a field that is not there is.
            Its results are shared, so they must not be changed.
    """
    remembered = remembering(read)
    nothing = read(_NULL)

    def read_field(value: Json, key: str) -> _T:
        found = value.get(key)
        if found is None:
            return nothing
        data = bytes(found)
        return remembered(data) if len(data) <= _SHORT_BYTES else read(data)

    read_field.__doc__ = read.__doc__
    return read_field


def forget() -> None:
    """Let go of the strings of a record that has been read."""
    for forget_one in _forgetters:
        forget_one()


def object_of(raw: bytes | Raw) -> dict[str, Raw]:
    """An object's fields.

    Raises:
        MALFORMED: it is none.
    """
    return _object.decode(raw)


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Put text on one line, without control characters, cut where it is far too long.

    >>> clean(" Dear\\r\\n colleague\\x1b[31m ")
    'Dear colleague\N{REPLACEMENT CHARACTER}[31m'
    """
    if not text.isprintable() or "  " in text:
        text = printable(_SPACES.sub(" ", text))
    text = text.strip()
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text):,} characters in all)"


def printable(text: str) -> str:
    """Text of characters that can be seen: others are marked, or gone where they have no width."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else "" if category(c) == "Cf" else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def json_of(value: Json, key: str) -> bytes:
    """A field's JSON; that of null where it is not there."""
    return bytes(value.get(key, _NULL))


def is_null(value: Json, key: str) -> bool:
    """Whether a field that is there is null."""
    return bytes(value[key]) == _NULL


def plain(value: Json, key: str) -> str | None:
    """A string as it is, with its lines; None where there is none."""
    found = json_of(value, key)
    return _string.decode(found) if found.startswith(b'"') else None


def _line_of(data: bytes) -> str:
    return clean(_string.decode(data)) if data.startswith(b'"') else ""


def _fields_of(data: bytes) -> Json:
    return _object.decode(data) if data.startswith(b"{") else {}


def _items_of(data: bytes) -> list[bytes]:
    return [bytes(item) for item in _list.decode(data)[:MAX_ITEMS]] if data[:1] == b"[" else []


def _object_items(data: bytes) -> list[bytes]:
    # A lone object is a list of one, as careless senders write.
    items = [data] if data.startswith(b"{") else _items_of(data)
    return [item for item in items if item.startswith(b"{")]


@field
def string(data: bytes) -> str:
    """A string on one line; "" where there is none."""
    return _line_of(data)


@field
def name_of(data: bytes) -> str:
    """A short string; "" where there is none."""
    return clean(_string.decode(data), limit=64) if data.startswith(b'"') else ""


def id_of(value: Json) -> str:
    """A resource's id; "" where it has none."""
    data = json_of(value, "id")
    # Each is met once, so there is nothing to remember.
    return data[1:-1].decode() if _ID.fullmatch(data) else name_of(value, "id")


@field
def strings(data: bytes) -> tuple[str, ...]:
    """The strings of a list."""
    return tuple(_line_of(item) for item in _items_of(data) if item.startswith(b'"'))


@field
def child(data: bytes) -> Json:
    """An object; an empty one where there is none."""
    return _fields_of(data)


def objects_of(data: bytes) -> tuple[Json, ...]:
    """The objects of a list; a lone object is a list of one, as careless senders write."""
    return tuple(map(_object.decode, _object_items(data)))


children = field(objects_of)


def _coding(data: bytes) -> Coding:
    value = _fields_of(data)
    return Coding(string(value, "system"), string(value, "code"), string(value, "display"))


@field
def coding(data: bytes) -> Coding:
    """A Coding."""
    return _coding(data)


@field
def codings(data: bytes) -> tuple[Coding, ...]:
    """The Codings of a list."""
    return tuple(_coding(item) for item in _object_items(data))


def code_words(code: Coding) -> str:
    """A code in words: its display, or the code with the name of its terminology."""
    name = SYSTEM_NAMES.get(code.system, "")
    return code.display or " ".join(filter(None, (name, code.code)))


def _concept(data: bytes) -> Concept:
    value = _fields_of(data)
    said, found = string(value, "text"), codings(value, "coding")
    if not said:
        said = next((code.display for code in found if code.display), "")
    if not said:
        said = next(filter(None, map(code_words, found)), "")
    return Concept(said, found)


@field
def concept(data: bytes) -> Concept:
    """A CodeableConcept: its text, or the first words or code that its codings give."""
    return _concept(data)


def concepts_of(data: bytes) -> tuple[Concept, ...]:
    """The CodeableConcepts of a list."""
    return tuple(map(_concept, _object_items(data)))


concepts = field(concepts_of)


def words(value: Json, key: str) -> str:
    """The words of a CodeableConcept."""
    return concept(value, key).text


@field
def words_of_all(data: bytes) -> tuple[str, ...]:
    """The words of each CodeableConcept of a list, each once."""
    found = (_concept(item).text for item in _object_items(data))
    return tuple(dict.fromkeys(filter(None, found)))


def first_code(value: Json, key: str) -> str:
    """The code of a CodeableConcept, as of a status; its words where it has no code."""
    found = concept(value, key)
    return next((code.code for code in found.codings if code.code), found.text)


def number_of(written: str) -> str | None:
    """A number as it was written; None where it is none, or is of absurd size.

    >>> number_of("4.10"), number_of("7"), number_of("1e999"), number_of("true")
    ('4.10', '7', None, None)
    """
    return written if _NUMBER.fullmatch(written) else None


@field
def number(data: bytes) -> str | None:
    """A number as it was written, also as a string; None where there is none."""
    return number_of(_string.decode(data) if data.startswith(b'"') else data.decode())


@field
def count(data: bytes) -> int:
    """A whole number that is not negative; 0 where there is none."""
    return int(data) if data.isdigit() and len(data) < 11 and int(data) < 2**31 else 0


@field
def boolean(data: bytes) -> bool | None:
    """True or false; None where there is neither."""
    return _BOOLEANS.get(data)


def quantity_of(data: bytes) -> Quantity | None:
    """A Quantity; None where it has no number."""
    value = _fields_of(data)
    amount = number(value, "value")
    if amount is None:
        return None
    code, comparator = string(value, "code"), string(value, "comparator")
    return Quantity(
        value=amount,
        unit=string(value, "unit") or code,
        code=code if plain(value, "system") == UCUM else "",
        comparator=comparator if comparator in _COMPARATORS else "",
    )


quantity = field(quantity_of)


def when_of(written: str) -> When | None:
    """A date, dateTime or instant; None where it is none.

    >>> when_of("2019-03").precision, when_of("2019-03-01T10:15:00-05:00").zone is None
    ('month', False)
    >>> when_of("2019-13-01"), when_of("soon")
    (None, None)
    """
    if (match := _WHEN.fullmatch(written)) is None:
        return None
    full = written + ("-01-01", "-01", "")[bool(match[2]) + bool(match[3])]
    try:
        # FHIR allows a leap second; a clock of 60 seconds does not.
        point = datetime.fromisoformat(full.replace(":60", ":59"))
        epoch_s = (point if point.tzinfo else point.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return When(written, epoch_s)


@field
def when(data: bytes) -> When | None:
    """A date, dateTime or instant; None where there is none."""
    return when_of(_string.decode(data)) if data.startswith(b'"') else None


def _reference(data: bytes) -> str:
    return string(_fields_of(data), "reference")


@field
def reference(data: bytes) -> str:
    """Where a Reference points; "" where it does not."""
    return _reference(data)


@field
def references(data: bytes) -> tuple[str, ...]:
    """Where each Reference of a list points."""
    return tuple(filter(None, map(_reference, _object_items(data))))
