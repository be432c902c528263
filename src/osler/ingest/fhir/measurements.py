"""The value of an observation or of a part of it, and how it stands to what is normal."""

from decimal import Decimal

from msgspec.structs import replace

from osler.ingest.fhir.fields import (
    Json,
    boolean,
    child,
    concept,
    concepts_of,
    json_of,
    number,
    objects_of,
    quantity,
    quantity_of,
    remembering_short,
    string,
    words,
)
from osler.ingest.fhir.records import Measurement, Quantity, ReferenceRange

# http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation, and the words for them.
_INTERPRETATIONS = {
    "N": "normal",
    "A": "abnormal",
    "AA": "critically abnormal",
    "H": "high",
    "HH": "critically high",
    "HU": "significantly high",
    "L": "low",
    "LL": "critically low",
    "LU": "significantly low",
    "<": "off scale low",
    ">": "off scale high",
    "U": "significant change up",
    "D": "significant change down",
    "B": "better",
    "W": "worse",
    "S": "susceptible",
    "I": "intermediate",
    "R": "resistant",
    "POS": "positive",
    "NEG": "negative",
    "IND": "indeterminate",
    "DET": "detected",
    "ND": "not detected",
    "RR": "reactive",
    "NR": "non-reactive",
    "EXP": "exposure threshold exceeded",
    "WR": "weakly reactive",
}


def measurement(value: Json) -> Measurement:
    """Read the value, range and flag of an Observation or an Observation.component.

    Source: FHIR R4, Observation.value[x], referenceRange, interpretation, dataAbsentReason.
    """
    found = _measured(
        json_of(value, "valueQuantity"),
        json_of(value, "referenceRange"),
        json_of(value, "interpretation"),
    )
    if found.quantity:
        return found
    text = _text(value)
    if not text and (reason := words(value, "dataAbsentReason")):
        text = f"no value ({reason})"
    return replace(found, text=text)


@remembering_short
def _measured(value: bytes, ranges: bytes, interpretation: bytes) -> Measurement:
    """A quantity with what is said of it, which a record may say again and again."""
    amount, reference = quantity_of(value), _reference(ranges)
    return Measurement(amount, "", reference, _flag(interpretation, amount, reference))


def quantity_words(value: Json, key: str) -> str:
    """A Quantity in words; "" where it has no number."""
    found = quantity(value, key)
    return "" if found is None else spelled(found)


def spelled(amount: Quantity) -> str:
    """A quantity as it is written: comparator, number, unit."""
    return " ".join(filter(None, (amount.comparator + amount.value, amount.unit)))


def range_words(value: Json) -> str:
    """A Range in words."""
    low, high = quantity(value, "low"), quantity(value, "high")
    return limits_words(ReferenceRange(low, high))


def limits_words(limits: ReferenceRange | None) -> str:
    """The limits in words; their text where there are none.

    >>> limits_words(ReferenceRange(Quantity("12.0", "g/dL"), Quantity("16.0", "g/dL")))
    '12.0 to 16.0 g/dL'
    """
    if limits is None:
        return ""
    low, high = limits.low, limits.high
    if low and high:
        left = low.value if low.unit == high.unit else spelled(low)
        return f"{left} to {spelled(high)}"
    if low:
        return f"from {spelled(low)}"
    return f"up to {spelled(high)}" if high else limits.text


def ratio_words(value: Json) -> str:
    """A Ratio in words, as of titres and of doses by the hour."""
    above, below = quantity_words(value, "numerator"), quantity(value, "denominator")
    if not above or below is None:
        return above
    if below.unit and below.value == "1":
        return f"{above} per {below.unit}"
    return f"{above}:{spelled(below)}"


def _text(value: Json) -> str:
    """Any value[x] but a quantity, in words."""
    if "valueCodeableConcept" in value:
        return words(value, "valueCodeableConcept")
    if (found := boolean(value, "valueBoolean")) is not None:
        return "yes" if found else "no"
    if (integer := number(value, "valueInteger")) is not None:
        return integer
    for key in ("valueString", "valueDateTime", "valueTime"):
        if text := string(value, key):
            return text
    if "valuePeriod" in value:
        period = child(value, "valuePeriod")
        return f"{string(period, 'start')} to {string(period, 'end')}"
    if "valueSampledData" in value:
        return "sampled data"
    return range_words(child(value, "valueRange")) or ratio_words(child(value, "valueRatio"))


def _reference(data: bytes) -> ReferenceRange | None:
    """The normal range; where there are several, that which says so, else the first."""
    ranges = objects_of(data)
    if len(ranges) > 1:
        normal = tuple(r for r in ranges if concept(r, "type").key.endswith("|normal"))
        ranges = normal or ranges[:1]
    for found in ranges:
        low, high = quantity(found, "low"), quantity(found, "high")
        text = string(found, "text")
        if low or high or text:
            return ReferenceRange(low, high, text)
    return None


def _flag(interpretation: bytes, amount: Quantity | None, reference: ReferenceRange | None) -> str:
    for said in concepts_of(interpretation):
        for code in said.codings:
            if code.code in _INTERPRETATIONS:
                return _INTERPRETATIONS[code.code]
        if said.text:
            return said.text.lower()
    return _by_range(amount, reference) if amount and reference else ""


def _by_range(amount: Quantity, reference: ReferenceRange) -> str:
    """Where a number stands to its limits, if they are in one unit."""
    low, high = (
        limit if limit and same_unit(limit, amount) else None
        for limit in (reference.low, reference.high)
    )
    found, comparator = Decimal(amount.value), amount.comparator
    # "<5" may be anything below 5: it lies below a limit of 5, and says nothing of one below 5.
    if low:
        limit = Decimal(low.value)
        if (found < limit and ">" not in comparator) or (found == limit and comparator == "<"):
            return "below range"
    if high:
        limit = Decimal(high.value)
        if (found > limit and "<" not in comparator) or (found == limit and comparator == ">"):
            return "above range"
    return "within range" if low and high and not comparator else ""


def same_unit(one: Quantity, other: Quantity) -> bool:
    """Whether two quantities are in one unit; a limit without a unit is in its value's."""
    if one.code and other.code:
        return one.code == other.code
    return not one.unit or one.unit.casefold() == other.unit.casefold()
