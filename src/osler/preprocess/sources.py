"""All that a caller may hand in as an image, as one kind of record."""

import hashlib
import os
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from osler.errors import PromptError, UnreadableFileError
from osler.ingest.image import Image
from osler.ingest.read import read_image, read_image_bytes


@dataclass(frozen=True)
class ImageFile:
    """A file's bytes that are in memory; decoded when its turn comes, not before.

    Attributes:
        data: a picture or a DICOM object.
        name: what to call it in messages.
    """

    data: bytes = field(repr=False)
    name: str = "image"


ImageSource = str | os.PathLike[str] | ImageFile | Image | PIL.Image.Image | NDArray[np.uint8]

# Grey of more than eight bits: `convert("RGB")` would clip these to 255.
_DEEP_GREY = ("I", "F")


def as_image(source: ImageSource) -> Image:
    """Read a file, or take over what is in memory already.

    Args:
        source: the path of a picture or DICOM object, or its bytes as an `ImageFile`; an `Image`;
            a PIL image, which is turned upright by its EXIF orientation and loses its alpha; or
            uint8 (H, W, 3) RGB or (H, W) grey. The digest of pixels from memory is their own.

    Raises:
        UnreadableFileError: not there, empty, a folder, damaged, not an image.
        DicomError: a DICOM object that is malformed or has no pixels.
        UnsupportedError: an image of a kind that is not read.
        PromptError: none of the kinds above.
    """
    match source:
        case Image():
            return source
        case ImageFile():
            return read_image_bytes(source.data, source.name)
        case PIL.Image.Image():
            return _from_pillow(source)
        case np.ndarray():
            return _from_array(source)
        case str() | os.PathLike():
            return read_image(source)
    raise PromptError(
        f"an image is a path, an Image, a PIL image or a uint8 array, not {type(source).__name__}"
    )


def source_name(source: ImageSource) -> str:
    """What to call an image in a result: its file's name without the folder, or "image"."""
    if isinstance(source, Image):
        return source.source
    if isinstance(source, ImageFile):
        return source.name
    return os.path.basename(source) if isinstance(source, str | os.PathLike) else "image"


def _from_pillow(picture: PIL.Image.Image) -> Image:
    try:
        upright = PIL.ImageOps.exif_transpose(picture)
        is_deep = upright.mode.split(";")[0] in _DEEP_GREY
        values = np.asarray(upright if is_deep else upright.convert("RGB"))
    except (OSError, SyntaxError) as error:  # it is decoded only now
        raise UnreadableFileError("image: the picture is damaged or truncated") from error
    if not is_deep:
        return _from_memory(values)
    if not np.isfinite(values).all():
        raise UnreadableFileError("image: the picture holds values that are not numbers")
    return _from_memory(values.astype(np.float32))


def _from_array(values: NDArray[np.uint8]) -> Image:
    if values.dtype != np.uint8:
        raise PromptError(f"an image array is uint8, not {values.dtype}")
    if values.size == 0 or not (values.ndim == 2 or values.shape[2:] == (3,)):
        raise PromptError(f"an image array is (H, W, 3) or (H, W), not {values.shape}")
    if values.ndim == 2:
        values = np.repeat(values[:, :, np.newaxis], 3, axis=2)
    return _from_memory(values)


def _from_memory(values: NDArray[np.float32] | NDArray[np.uint8]) -> Image:
    return Image(
        values=values,
        space="display" if values.dtype == np.uint8 else "modality",
        source="image",
        sha256=hashlib.sha256(np.ascontiguousarray(values).data).hexdigest(),
        decoder="memory",
    )
