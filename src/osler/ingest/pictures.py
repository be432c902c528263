"""Ordinary pictures, read as `PIL.Image.Image.convert("RGB")` reads them.

Apart from 16-bit grey, which keeps its depth, and colours with an ICC profile other than sRGB.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image as PilImage
from PIL import ImageOps

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.color_profile import as_srgb
from osler.ingest.image import Image
from osler.ingest.limits import MAX_PIXELS, check_size

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")

# Grey of more than eight bits: `convert` would clip these to 255.
_DEEP_GREY = ("I", "F")

_ORIENTATION = 0x0112
_ON_THE_SIDE = (5, 6, 7, 8)

# What Pillow's plugins raise on bytes that are not what they should be.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    RuntimeError,
    AttributeError,
    EOFError,
    ZeroDivisionError,
    struct.error,
)


def decode_picture(data: bytes, *, source: str, sha256: str) -> Image:
    """Decode a PNG, JPEG, WebP or TIFF picture, upright as its EXIF orientation says.

    What a camera wrote beside the pixels (place, time, serial numbers) stays behind.

    Returns:
        uint8 RGB with `space` "display"; alpha is dropped, palette and CMYK are converted, and
        colours of another ICC profile brought to sRGB. Grey of 16 or more bits stays float32 with
        `space` "modality", for its range to be chosen later.

    Raises:
        UnreadableFileError: truncated or damaged.
        UnsupportedError: too many pixels, or several pages or frames.
    """
    with _damage_named():
        picture = _opened(data)
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.split(";")[0] in _DEEP_GREY:
            return Image(
                values=_deep_grey(upright),
                space="modality",
                source=source,
                sha256=sha256,
                decoder="pillow",
            )
        values = np.array(as_srgb(upright, picture.info.get("icc_profile")))
    return Image(values=values, space="display", source=source, sha256=sha256, decoder="pillow")


def picture_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a picture in pixels, upright, without decoding it.

    Raises:
        As `decode_picture`.
    """
    with _damage_named():
        picture = _opened(data)
        turned = picture.getexif().get(_ORIENTATION) in _ON_THE_SIDE
        width, height = picture.size
    return (width, height) if turned else (height, width)


def _opened(data: bytes) -> PilImage.Image:
    picture = PilImage.open(BytesIO(data), formats=_FORMATS)
    check_size(picture.height, picture.width)
    frames = getattr(picture, "n_frames", 1)
    # MPO is a camera's JPEG with a preview behind; the first is the picture.
    if frames > 1 and picture.format != "MPO":
        raise UnsupportedError(f"holds {frames} pictures; only one per file is read so far")
    picture.seek(0)
    return picture


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except PilImage.DecompressionBombError:
        raise UnsupportedError(f"more than the {MAX_PIXELS:,} pixels that are read") from None
    except DAMAGED:
        raise UnreadableFileError("the picture is damaged or truncated") from None


def _deep_grey(picture: PilImage.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    values = np.asarray(picture).astype(np.float32)
    if not np.isfinite(values).all():
        raise UnreadableFileError("the picture holds values that are not numbers")
    return values
