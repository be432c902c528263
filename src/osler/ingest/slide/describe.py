"""What a whole slide says of itself, without its pixels; runs in the decoding worker."""

from collections.abc import Mapping

from PIL import TiffImagePlugin
from PIL.Image import DecompressionBombError

from osler.errors import InputError, UnreadableFileError, UnsupportedError
from osler.ingest.decode import is_dicom
from osler.ingest.facts import FileFacts, FrameFacts, SlideFacts
from osler.ingest.pictures import DAMAGED
from osler.ingest.slide.dicom_level import describe_level
from osler.ingest.slide.libraries import slide_library
from osler.ingest.slide.mpp import number, ome_mpp, plausible_mpp
from osler.ingest.slide.recognise import is_mrxs

_HEAD_BYTES = 4096
_TILE_WIDTH = 322  # a TIFF's tag
# What is no larger than one patch is a picture, in tiles or not.
_LARGE_PX = 896


def describe_slide(path: str, source: str) -> FileFacts | None:
    """Say what a slide holds, or one file of a slide in DICOM.

    Args:
        path: of the file.
        source: the file's name, for messages.

    Returns:
        None where the file is not a slide.

    Raises:
        InputError: a slide that cannot be read, or one of its pictures that must not be.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
            if is_dicom(head):
                file.seek(0)
                # Nobody writes slides without the preamble that their reader asks for.
                return describe_level(file) if head[128:132] == b"DICM" else None
        return _described(path) if is_mrxs(path) or _is_tiled_slide(path) else None
    except OSError as error:
        raise UnreadableFileError(f"{source}: cannot be read ({error.strerror})") from None
    except InputError as error:
        raise type(error)(f"{source}: {error}") from None


def _is_tiled_slide(path: str) -> bool:
    """Whether a TIFF is a slide: in tiles, and large or a pyramid."""
    try:
        with TiffImagePlugin.TiffImageFile(path) as picture:
            if _TILE_WIDTH not in picture.tag_v2:
                return False
            return min(picture.size) > _LARGE_PX or picture.n_frames > 1
    except DecompressionBombError:
        return True
    except DAMAGED:
        return False  # whoever reads it as a picture will say so


def _described(path: str) -> FileFacts:
    library = slide_library("openslide")
    try:
        with library.OpenSlide(path) as slide:
            columns, rows = slide.dimensions
            # Nothing else is asked for: the names of patients and users stand among the rest.
            told: Mapping[str, str] = slide.properties
            mpp = plausible_mpp(*(_told(told, f"mpp-{axis}") for axis in "xy"))
            return FileFacts(
                kind="slide",
                rows=rows,
                columns=columns,
                frames=(FrameFacts(),),
                modality="SM",
                slide=SlideFacts(
                    reader="openslide",
                    bounds_px=_bounds(told, columns, rows),
                    mpp=mpp or ome_mpp(told.get("openslide.comment", "")),
                    objective_power=_told(told, "objective-power"),
                ),
            )
    except library.OpenSlideError:
        if is_mrxs(path):
            raise UnreadableFileError("damaged, or its folder is not beside it") from None
        raise UnsupportedError("damaged, or tiles of a coding that is not read") from None


def _told(told: Mapping[str, str], name: str) -> float | None:
    return number(told.get(f"openslide.{name}"))


def _bounds(told: Mapping[str, str], columns: int, rows: int) -> tuple[int, int, int, int]:
    """The part that was scanned, which MIRAX slides say, within the image."""
    left, top, width, height = (
        int(_told(told, f"bounds-{side}") or 0) for side in ("x", "y", "width", "height")
    )
    left, top = max(0, min(left, columns - 1)), max(0, min(top, rows - 1))
    width = min(width, columns - left) if width > 0 else columns - left
    height = min(height, rows - top) if height > 0 else rows - top
    return left, top, width, height
