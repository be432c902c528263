"""Micrometres per pixel, as files say them."""

import math
import re

# What lies outside was not measured with a microscope, such as 72 pixels to the inch.
_LEAST_MPP, _MOST_MPP = 0.02, 10.0
_OME_SIZES = tuple(re.compile(rf'\bPhysicalSize{axis}="([0-9.eE+-]{{1,24}})"') for axis in "XY")
# Micrometres are the default, and written with either mu, in UTF-8, as a reference or as "um".
_OME_OTHER_UNIT = re.compile(r'\bPhysicalSizeXUnit="(?![^"]{0,6}[µμu;]m")')


def plausible_mpp(x: float | None, y: float | None) -> tuple[float, float] | None:
    """A pixel's width and height in micrometres, where both can be true.

    >>> plausible_mpp(0.25, 0.25), plausible_mpp(352.8, 352.8), plausible_mpp(None, 0.25)
    ((0.25, 0.25), None, None)
    """
    if x is None or y is None:
        return None
    if all(math.isfinite(one) and _LEAST_MPP <= one <= _MOST_MPP for one in (x, y)):
        return x, y
    return None


def ome_mpp(description: str) -> tuple[float, float] | None:
    """A pixel's width and height by the OME-XML in a TIFF's description.

    >>> ome_mpp('<OME ...><Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.5" ...')
    (0.5, 0.5)

    Source: OME-XML schema 2016-06, Pixels.
    """
    if "<OME" not in description or _OME_OTHER_UNIT.search(description):
        return None
    found = [size.search(description) for size in _OME_SIZES]
    return plausible_mpp(*(number(one[1]) if one else None for one in found))


def number(text: object) -> float | None:
    """A number that a file wrote as text.

    >>> number("0,2522"), number("about 20")
    (0.2522, None)
    """
    try:
        return float(str(text).replace(",", "."))
    except ValueError:
        return None
