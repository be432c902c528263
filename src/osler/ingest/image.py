"""The record that every reader of images makes and the preprocessing takes."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Voi:
    """How a DICOM object asks to be shown (PS3.3 C.11.2): windows, or a lookup table.

    `window_centers` and `window_widths` have the same length and are in modality units; `lut` maps
    modality values, from `lut_first` on, to grey levels of `lut_bits`, and is None where there are
    windows only.
    """

    window_centers: tuple[float, ...] = ()
    window_widths: tuple[float, ...] = ()
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"
    lut: NDArray[np.int64] | None = None
    lut_first: int = 0
    lut_bits: int = 8


@dataclass(frozen=True, kw_only=True)
class Image:
    """One decoded two-dimensional image, before anything is chosen for the eye or the model.

    Attributes:
        values: float32 `(H, W)` in modality units (Hounsfield units for CT) when `space` is
            "modality"; uint8 `(H, W, 3)` RGB, 0 to 255, when `space` is "display".
        space: which of the two `values` holds.
        modality: DICOM Modality ("CR", "DX", "CT", "MR", ...), or None for a picture.
        monochrome1: True where low values are to be shown bright (PS3.3 C.7.6.3.1.2).
        voi: the object's own window or lookup table, where it has one.
        shown_range: the modality values to be shown from black to white, where more than this image
            decides it, as for the slice of a volume; (low, high).
        source: what to call the file in messages: its path as it was given, or in its folder.
        sha256: hex digest of the file's bytes; of a slide's patch, of its pixels.
        decoder: which decoder made the pixels ("numpy", "gdcm", "pillow", ...).
    """

    values: NDArray[np.float32] | NDArray[np.uint8]
    space: Literal["modality", "display"]
    source: str
    sha256: str
    decoder: str
    modality: str | None = None
    monochrome1: bool = False
    voi: Voi | None = None
    shown_range: tuple[float, float] | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.values.shape[0]), int(self.values.shape[1])
