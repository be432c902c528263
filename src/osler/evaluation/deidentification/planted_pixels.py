"""Images with names and numbers drawn into their pixels, in many sizes, places and codings."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmwrite, uid
from pydicom.encaps import encapsulate

from osler.evaluation.deidentification.identifiers import Plant
from osler.evaluation.deidentification.planted_dicom import DicomPlanter, file_of, with_pixels


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image to draw on.

    Attributes:
        height: in pixels.
        width: in pixels.
        syntax: transfer syntax UID.
        text_px: height of the letters.
        bits: of a sample; 8 or 16.
        color: three samples a pixel.
        frames: how many; text is drawn into some of them only.
        monochrome1: low values are bright.
        dark: dark letters on a bright band.
    """

    height: int
    width: int
    syntax: str = uid.ExplicitVRLittleEndian
    text_px: int = 14
    bits: int = 8
    color: bool = False
    frames: int = 1
    monochrome1: bool = False
    dark: bool = False


FEW = (
    Picture(height=160, width=200),
    Picture(height=256, width=256, syntax=uid.JPEGBaseline8Bit, text_px=16),
)
MANY = (
    *FEW,
    Picture(height=512, width=512, bits=16),
    Picture(height=512, width=512, bits=16, syntax=uid.JPEG2000Lossless, text_px=12),
    Picture(height=480, width=640, color=True, text_px=18),
    Picture(height=480, width=640, color=True, syntax=uid.JPEGBaseline8Bit, text_px=20),
    Picture(height=600, width=800, syntax=uid.RLELossless, text_px=24),
    Picture(height=300, width=400, syntax=uid.JPEGLSLossless, text_px=12),
    Picture(height=300, width=400, syntax=uid.ImplicitVRLittleEndian, text_px=10),
    Picture(height=300, width=400, syntax=uid.ExplicitVRBigEndian, bits=16, text_px=13),
    Picture(height=300, width=400, syntax=uid.DeflatedExplicitVRLittleEndian, text_px=16),
    Picture(height=1400, width=1200, bits=16, text_px=22),
    Picture(height=2000, width=1600, bits=16, monochrome1=True, text_px=36),
    Picture(height=400, width=500, monochrome1=True, text_px=16),
    Picture(height=400, width=500, dark=True, text_px=18),
    Picture(height=240, width=320, frames=3, text_px=14),
    Picture(height=240, width=320, frames=4, color=True, text_px=14),
    Picture(height=128, width=128, text_px=11),
)


def planted_images(
    planter: DicomPlanter, pictures: Sequence[Picture]
) -> Iterator[tuple[str, bytes]]:
    """Files by name, each with three lines in its pixels."""
    for number, picture in enumerate(pictures):
        name = f"pixels-{number:02}.dcm"
        yield name, _image(planter, picture, name)


def _image(planter: DicomPlanter, picture: Picture, file: str) -> bytes:
    ids = planter.ids
    frames = np.stack(
        [_anatomy(ids.random.randrange(2**32), picture) for _ in range(picture.frames)]
    )
    lines = (
        f"{ids.word().upper()} {ids.given().upper()}"[: _letters(picture)],
        f"ID {ids.digits(8)}",
        f"{ids.day():%d/%m/%Y}",
    )
    corners = ids.random.sample(("top left", "bottom left", "middle", "top right"), len(lines))
    for line, corner in zip(lines, corners, strict=True):
        spot = _drawn(line, corner, picture)
        # On all frames but the first of a clip: text comes and goes.
        for frame in frames[1:] if picture.frames > 1 else frames:
            if picture.dark:
                band = spot.any(axis=1)
                frame[band] = 230
            frame[spot] = 12 if picture.dark else 255
        planter.plants.append(Plant(place="burned in", file=file, value=line, spot=spot))
    if picture.color:
        frames = np.repeat(frames[..., None], 3, axis=-1)
    if picture.monochrome1:
        frames = 255 - frames
    stored = frames.astype(np.uint16) * 16 if picture.bits == 16 else frames
    ds = with_pixels(planter.base(file), stored if picture.frames > 1 else stored[0])
    if picture.bits == 16:
        ds.BitsStored, ds.HighBit = 12, 11
    if picture.monochrome1:
        ds.PhotometricInterpretation = "MONOCHROME1"
    return _encoded(ds, stored, picture.syntax, planter, file)


def _letters(picture: Picture) -> int:
    return max(6, int(picture.width * 0.45 / (0.75 * picture.text_px)))


def _anatomy(seed: int, picture: Picture) -> NDArray[np.uint8]:
    """Soft shapes and noise, as dark as a picture's edges are."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: picture.height, : picture.width]
    waves = 50 * np.sin(x / random.uniform(20, 60)) + 40 * np.cos(y / random.uniform(15, 50))
    noise = random.normal(0, 6, (picture.height, picture.width))
    return np.asarray((70 + waves + noise).clip(0, 190), dtype=np.uint8)


def _drawn(line: str, corner: str, picture: Picture) -> NDArray[np.bool_]:
    canvas = Image.new("L", (picture.width, picture.height))
    font = ImageFont.load_default(picture.text_px)
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = draw.textbbox((0, 0), line, font=font)
    width, height = right - left, bottom - top
    margin = 4
    place = {
        "top left": (margin, margin),
        "bottom left": (margin, picture.height - height - 3 * margin),
        "middle": ((picture.width - width) // 2, (picture.height - height) // 2),
        "top right": (picture.width - width - 2 * margin, 2 * picture.height // 9),
    }[corner]
    draw.text(place, line, fill=255, font=font)
    return np.asarray(np.asarray(canvas) > 100)


def _encoded(
    ds: Dataset,
    stored: NDArray[np.unsignedinteger[Any]],
    syntax: str,
    planter: DicomPlanter,
    file: str,
) -> bytes:
    native = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
    if syntax in (*native, uid.DeflatedExplicitVRLittleEndian):
        if syntax == uid.ExplicitVRBigEndian:
            ds.PixelData = stored.byteswap().tobytes()
        return file_of(ds, syntax=syntax)
    if syntax == uid.JPEGBaseline8Bit:
        # With a comment in its codestream, as some converters leave one.
        comment = planter.plant("codestream comment", file, planter.ids.word()).encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        frames = [bytes(imagecodecs.jpeg8_encode(frame, level=95)) for frame in stored]
        ds.PixelData = encapsulate([frame[:2] + segment + frame[2:] for frame in frames])
        ds["PixelData"].is_undefined_length = True
        if stored.shape[-1] == 3:
            ds.PhotometricInterpretation = "YBR_FULL_422"
        return file_of(ds, syntax=syntax)
    file_of(ds)  # gives it its file meta information
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.compress(syntax, generate_instance_uid=False)
    made = BytesIO()
    dcmwrite(made, ds, enforce_file_format=True)
    return made.getvalue()
