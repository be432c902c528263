"""Colours by their ICC profile to sRGB, which is what models and screens take them for."""

from functools import lru_cache
from io import BytesIO

from PIL import Image as PilImage
from PIL import ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_MOST_PROFILE_BYTES = 16 << 20


def as_srgb(picture: PilImage.Image, profile: bytes | None) -> PilImage.Image:
    """Bring a picture to RGB.

    Args:
        picture: of any mode with eight bits a sample.
        profile: its ICC profile, where it has one. One that is damaged, not for colours of the
            picture's kind, or sRGB itself changes nothing.

    Returns:
        Mode "RGB", without alpha.

    Source: ICC.1:2022; DICOM PS3.3 C.11.15.
    """
    if profile and len(profile) <= _MOST_PROFILE_BYTES:
        colours = picture if picture.mode == "CMYK" else picture.convert("RGB")
        try:
            transform = _to_srgb(profile, colours.mode)
            shown = None if transform is None else ImageCms.applyTransform(colours, transform)
            return colours.convert("RGB") if shown is None else shown
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # the colours are sound without it, if a little off
    return picture.convert("RGB")


@lru_cache(maxsize=2)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None for sRGB itself; kept, as a slide has one profile for thousands of squares."""
    opened = ImageCms.ImageCmsProfile(BytesIO(profile))
    if "sRGB" in ImageCms.getProfileDescription(opened):
        return None
    return ImageCms.buildTransform(opened, _SRGB, mode, "RGB")
