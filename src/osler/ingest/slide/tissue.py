"""What of a slide is tissue: colour against a bright ground, by hue, saturation and value."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageFilter

LEVELS = 256
# Grain and blocks of JPEG have colours of their own, which the mean of a square removes.
_SMOOTH_PX = 2
# The edge of the glass, dust and black ink.
_DARK = 51
# Green ink, in Pillow's 256 steps of hue; haematoxylin is blue, DAB is brown.
_GREEN_FROM, _GREEN_TO = 53, 117
# Below the least no stain can be told from glass; above the most it always can.
_LEAST, _MOST = 13, 38


def saturations(rgb: PilImage.Image) -> NDArray[np.int32]:
    """How many pixels of a picture have each saturation.

    What is too dark or too green to be stained tissue is counted as without colour.

    Args:
        rgb: of some magnification at which cells are small, such as 5.

    Returns:
        int32 (256,).
    """
    hsv = rgb.filter(ImageFilter.BoxBlur(_SMOOTH_PX)).convert("HSV")
    hue, saturation, value = (np.asarray(band) for band in hsv.split())
    is_other = (value < _DARK) | ((hue >= _GREEN_FROM) & (hue <= _GREEN_TO))
    counts = np.bincount(np.where(is_other, 0, saturation).ravel(), minlength=LEVELS)
    return counts.astype(np.int32)


def tissue_fractions(counts_N256: NDArray[np.int32]) -> NDArray[np.float64]:
    """Which share of each part of a slide is tissue.

    The saturation from which it is tissue is where those of all the slide part best into two, as
    long as that can be true of a stain and of glass.

    Args:
        counts_N256: `saturations` of each part.

    Returns:
        (N,), 0 to 1.

    Source: Otsu 1979 (doi:10.1109/TSMC.1979.4310076).
    """
    threshold = min(max(_otsu(counts_N256.sum(axis=0)), _LEAST), _MOST)
    fractions: NDArray[np.float64] = counts_N256[:, threshold:].sum(axis=1) / np.maximum(
        counts_N256.sum(axis=1), 1
    )
    return fractions


def _otsu(counts: NDArray[np.int64]) -> int:
    """The first level of the upper of two classes that are as far from each other as can be."""
    levels = np.arange(LEVELS)
    below = np.cumsum(counts)[:-1].astype(np.float64)
    sum_below = np.cumsum(counts * levels)[:-1].astype(np.float64)
    total, total_sum = float(counts.sum()), float((counts * levels).sum())
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sum_below / below - (total_sum - sum_below) / above) ** 2
    return int(np.argmax(np.nan_to_num(between))) + 1
