"""Where a server listens, whom it lets in, and how much it takes on."""

import ipaddress
import math
from dataclasses import dataclass, field

from osler.errors import ServerSettingsError

MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of one server.

    Attributes:
        host: the address to listen on; one that other machines can reach needs a token.
        port: 0 takes a free one.
        token: what every request but `/health` must bring as its bearer token; None for no token.
        max_body_bytes: the most that one request may send.
        max_held_bytes: the most that the bodies and prepared images of all requests together may
            take; further requests are told to come again.
        max_requests: answers in the making, those that wait included; further ones are told to
            come again.
        max_new_tokens: the most tokens of one answer, and what a request gets that does not say.
        timeout_s: an answer that takes longer ends where it is.
        body_timeout_s: a request whose body takes longer to arrive is dropped.

    Raises:
        ServerSettingsError: an open address without a token, or a value outside its range.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    max_body_bytes: int = 64 * MEBIBYTE
    max_held_bytes: int = 2048 * MEBIBYTE
    max_requests: int = 128
    max_new_tokens: int = 4096
    timeout_s: float = 600.0
    body_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ServerSettingsError(f"port is {self.port}; it must be from 0 to 65535")
        for name in (
            "max_body_bytes",
            "max_held_bytes",
            "max_requests",
            "max_new_tokens",
            "timeout_s",
            "body_timeout_s",
        ):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ServerSettingsError(f"{name} is {value}; it must be above 0")
        if self.token is not None and not _is_token(self.token):
            raise ServerSettingsError("the token is empty or has characters that no header takes")
        if self.token is None and not is_loopback(self.host):
            raise ServerSettingsError(
                f"host {self.host!r} lets other machines in: that needs a token (OSLER_TOKEN)"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "")]
    [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_token(token: str) -> bool:
    return token.isascii() and token.isprintable() and token != "" and " " not in token
