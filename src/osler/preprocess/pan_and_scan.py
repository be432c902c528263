"""Crops along the long side of an image, so that a model sees more of its detail.

Source: Gemma 3 technical report (arXiv 2503.19786), section 2.1, "Pan & Scan"; the rules and their
constants are those of `transformers`.
"""

import math

from osler.preprocess.image_settings import ImageSettings
from osler.preprocess.squaring import Display


def crops(display_HW3: Display, settings: ImageSettings) -> list[Display]:
    """Cut an image that is far from square into equal parts along its long side.

    Args:
        display_HW3: uint8.
        settings: when to crop, and how far.

    Returns:
        Views of the image in reading order, the last one narrower where the sides do not divide;
        none where the image is nearly square or its parts would be too small.
    """
    long_side, short_side = max(display_HW3.shape[:2]), min(display_HW3.shape[:2])
    if long_side / short_side < settings.pan_and_scan_min_ratio_to_activate:
        return []
    nearest = math.floor(long_side / short_side + 0.5)
    count = min(nearest, long_side // settings.pan_and_scan_min_crop_size)
    count = min(max(count, 2), settings.pan_and_scan_max_num_crops)
    step = math.ceil(long_side / count)
    if min(step, short_side) < settings.pan_and_scan_min_crop_size:
        return []
    height, width = display_HW3.shape[:2]
    parts = [slice(start, start + step) for start in range(0, step * count, step)]
    if width >= height:
        return [display_HW3[:, part] for part in parts]
    return [display_HW3[part] for part in parts]
