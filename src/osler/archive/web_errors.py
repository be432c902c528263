"""What may go wrong between us and a web server, each in one line.

Never in the server's words: servers like to quote what they were asked.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from osler.archive.address import WebAddress
from osler.errors import ArchiveError, ArchiveUnreachableError

_TOO_MANY_REQUESTS = 429


@contextmanager
def on_the_way(address: WebAddress) -> Iterator[None]:
    """Say what went wrong on the way to a server and back.

    Raises:
        ArchiveUnreachableError: no connection, or one that broke off or fell silent.
    """
    try:
        yield
    except httpx2.TimeoutException:
        raise ArchiveUnreachableError(f"{address}: no answer for too long") from None
    except httpx2.ConnectError as error:
        reason = " ".join(str(error).split())[:100]
        raise ArchiveUnreachableError(f"{address}: out of reach ({reason})") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = f"the connection broke off ({type(error).__name__})"
        raise ArchiveUnreachableError(f"{address}: {reason}") from None


def refusal(
    address: WebAddress,
    response: httpx2.Response,
    token: str | None,
    kind: type[ArchiveError] = ArchiveError,
) -> ArchiveError:
    """What an answer that is no answer means.

    Args:
        address: the server's.
        response: with a status that was not hoped for.
        token: what the request carried.
        kind: of the error where the caller knows more; else a busy server, and one that failed,
            are worth another try.
    """
    status = response.status_code
    if response.is_redirect:
        return ArchiveError(f"{address}: redirects elsewhere, and Osler does not follow")
    if status in (401, 403):
        which = "needs a token" if token is None else "refuses the token"
        return ArchiveError(f"{address}: {which} ({status})")
    if kind is ArchiveError and (status >= 500 or status == _TOO_MANY_REQUESTS):
        kind = ArchiveUnreachableError
    return kind(f"{address}: answers {status} {response.reason_phrase}".rstrip())
