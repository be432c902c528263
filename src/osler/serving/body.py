"""A request's body, read within bounds."""

import asyncio

from starlette.requests import Request

from osler.serving.failure import ApiError
from osler.serving.gate import Entry
from osler.serving.settings import ServerSettings

# The body itself, its base64 as text, and the files in it, while they are being taken apart.
COPIES = 3


async def read_body(request: Request, entry: Entry, settings: ServerSettings) -> bytes:
    """Read a body whole.

    Args:
        request: its client sends JSON.
        entry: holds the body's bytes as they come.
        settings: say how large a body may be, and how long it may take.

    Raises:
        ApiError: 413, 415, 408, or 429 where there is no memory left for it.
        ClientDisconnect: the client left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Also keeps out what a web page can make a browser send here unasked.
    if kind != "application/json":
        raise ApiError(415, "the content type must be application/json")
    most = settings.max_body_bytes
    too_large = ApiError(413, f"the body is larger than {most:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for part in request.stream():
                if len(body) + len(part) > most:
                    raise too_large
                entry.hold(COPIES * len(part))
                body += part
    except TimeoutError:
        raise ApiError(
            408, "the body took too long to arrive", headers={"Connection": "close"}
        ) from None
    return bytes(body)
