"""Conversion between units, by the Unified Code for Units of Measure.

Only between units of the same dimensions: mmol/L to mg/dL would need the substance, and the
percents and ratios in which HbA1c is given differ by more than a factor.
"""

import re
from decimal import Decimal
from functools import cache
from typing import Any

import pint

from osler.ingest.fhir.records import Quantity

_LEAST_DIGITS = 3
_MOST_LETTERS = 40
_LONG_NUMBER = re.compile("[0-9]{4}")  # an exponent that would be worked out for hours


def convert(amount: Quantity, target: Quantity) -> Quantity | None:
    """A quantity in the unit of another; None where there is no way, or no way to be sure.

    Args:
        amount: what to convert.
        target: whose unit to take.

    >>> convert(Quantity("91.0", "g/L", "g/L"), Quantity("8", "g/dL", "g/dL"))
    Quantity(value='9.10', unit='g/dL', code='g/dL', comparator='')
    >>> convert(Quantity("5", "mmol/L", "mmol/L"), Quantity("90", "mg/dL", "mg/dL")) is None
    True
    """
    here, there = _unit(amount.code or amount.unit), _unit(target.code or target.unit)
    if here is None or there is None or here.dimensionality != there.dimensionality:
        return None
    if here.dimensionless:
        return None
    value = Decimal(amount.value)
    try:
        magnitude = _registry().Quantity(float(value), here.units).to(there).magnitude
    except (pint.errors.PintError, ArithmeticError):
        return None
    found = Decimal(repr(float(magnitude)))
    if not found.is_finite():
        return None
    digits = max(len(value.as_tuple().digits), _LEAST_DIGITS)
    places = max(digits - 1 - found.adjusted(), 0)
    text = f"{found:.{places}f}"
    return Quantity(text, target.unit, target.code, amount.comparator)


@cache
def _registry() -> Any:
    """The units; made when they are first needed, which takes seconds."""
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@cache
def _unit(code: str) -> Any:
    """A unit by its UCUM code; None where it is none."""
    from lark.exceptions import LarkError

    if not code or len(code) > _MOST_LETTERS or _LONG_NUMBER.search(code):
        return None
    try:
        found = _registry().from_ucum(code)
    except (LarkError, pint.errors.PintError, ArithmeticError, RecursionError):
        return None
    return found if isinstance(found, pint.Quantity) else None  # "{score}" comes back as itself
