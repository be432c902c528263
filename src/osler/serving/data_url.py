"""Images out of requests: data URLs, and no others, because this server fetches nothing."""

import binascii
import re

from osler.errors import PromptError
from osler.preprocess.sources import ImageFile

# What the bytes are is decided by the bytes; the type only says that an image is meant.
MEDIA_TYPES = (
    "image/png",
    "image/jpeg",
    "image/jpg",
    "image/webp",
    "image/tiff",
    "application/dicom",
)

_HEAD = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(;[^;,]*)*;base64,", re.IGNORECASE)
_LONGEST_HEAD = 200
_WEB_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether a text is nothing but an address, so that an image is meant and not its letters.

    >>> [is_url(text) for text in ("data:image/png;base64,AAAA", "https://a.b/c.png")]
    [True, True]
    >>> [is_url(text) for text in ("data: none were available", "see https://a.b/c.png")]
    [False, False]
    """
    return bool(_HEAD.match(text[:_LONGEST_HEAD]) or _WEB_ADDRESS.fullmatch(text[:_LONGEST_HEAD]))


def image_of_url(url: str, where: str) -> ImageFile:
    """Take an image out of its data URL.

    Args:
        url: `data:image/png;base64,...` and so on, or `data:application/dicom;base64,...`.
        where: what to call the image in messages.

    Raises:
        PromptError: any other URL, or base64 that is none.
    """
    head = _HEAD.match(url[:_LONGEST_HEAD])
    if head is None:
        raise PromptError(f"{where}: {_why_not(url)}")
    if head[1].lower() not in MEDIA_TYPES:
        raise PromptError(f"{where}: its type must be one of {', '.join(MEDIA_TYPES)}")
    try:
        # ValueError: characters beyond ASCII.
        data = binascii.a2b_base64(url[head.end() :], strict_mode=True)
    except (binascii.Error, ValueError):
        raise PromptError(f"{where}: what follows 'base64,' is not base64") from None
    return ImageFile(data, where)


def _why_not(url: str) -> str:
    scheme = _SCHEME.match(url)
    if scheme is not None and scheme[1].lower() != "data":
        return f"a {scheme[1].lower()} URL; this server fetches nothing: send a data URL"
    return "not a base64 data URL (data:image/png;base64,... or data:application/dicom;base64,...)"
