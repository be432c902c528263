"""The address of a server that Osler may send to: what the user wrote, and nothing else."""

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from osler.errors import PromptError


@dataclass(frozen=True, kw_only=True)
class RemoteAddress:
    """Where a server is, and the token that it wants.

    Attributes:
        base: with the path that the protocol's paths are below, as "https://gpu.example:8000/v1".
        token: sent as a bearer token; None for none.
    """

    base: str
    token: str | None = field(default=None, repr=False)

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(self.base).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def warning(self) -> str | None:
        """What a user must know before anything is sent there; None where there is nothing."""
        if self.is_here or self.base.startswith("https:"):
            return None
        return (
            f"{self.base} is another machine and not encrypted: all on the way can read the images "
            "and texts sent there; use https"
        )


def remote_address(url: str, token: str | None = None) -> RemoteAddress:
    """Read an address as users write it.

    Args:
        url: "http://127.0.0.1:8000", with or without "/v1".
        token: the server's, if it wants one.

    Raises:
        PromptError: no such address, or one with a password in it.

    >>> remote_address("http://localhost:8000").base
    'http://localhost:8000/v1'
    """
    try:
        parts = urlsplit(url.strip())
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host or parts.scheme not in ("http", "https"):
        raise PromptError(f"engine: {_shown(url)!r} is no http(s) address")
    if parts.username is not None or parts.password is not None:
        raise PromptError("engine: an address does not hold a password; name a token's variable")
    if parts.query or parts.fragment:
        raise PromptError(f"engine: {_shown(url)!r} has more than a host and a path")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        raise PromptError("engine: the token is empty or has characters that no header takes")
    path = parts.path.rstrip("/") or "/v1"
    return RemoteAddress(base=urlunsplit((parts.scheme, parts.netloc, path, "", "")), token=token)


def _shown(url: str) -> str:
    """An address without what may be a password or a token."""
    return re.split("[?#]", url)[0].rpartition("@")[2][:200]
