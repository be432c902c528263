"""Where an archive is, as a user writes it: a DICOMweb URL, or TITLE@host:port."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from osler.errors import InputError

# PS3.5 table 6.2-1, AE: 16 characters at most; a backslash would part values.
_CLASSIC = re.compile(
    r"(?P<title>[^@\\\s/]{1,16})@(?P<host>\[[0-9a-fA-F:]+\]|[^:@/\s]+):(?P<port>\d{1,5})"
)


@dataclass(frozen=True, kw_only=True)
class WebAddress:
    """A DICOMweb service.

    Attributes:
        base: what "/studies" follows, as "https://pacs.example/dicom-web".
    """

    base: str

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(urlsplit(self.base).hostname or "")

    def __str__(self) -> str:
        return self.base


@dataclass(frozen=True, kw_only=True)
class ClassicAddress:
    """An application entity of classic DICOM.

    Attributes:
        title: its AE title.
    """

    title: str
    host: str
    port: int

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"


def archive_address(text: str) -> WebAddress | ClassicAddress:
    """Read an archive's address.

    Args:
        text: "http(s)://host/path" or "TITLE@host:port".

    Raises:
        InputError: neither, or an URL with a password or a query in it.

    >>> archive_address("PACS@10.0.0.5:104").title
    'PACS'
    >>> archive_address("http://localhost:8042/dicom-web/").base
    'http://localhost:8042/dicom-web'
    """
    text = text.strip()
    if text.startswith(("http://", "https://")):
        return _web(text)
    match = _CLASSIC.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 1 << 16:
        shown = text.rpartition("@")[2][:100]
        raise InputError(f"archive: {shown!r} is neither TITLE@host:port nor an http(s) address")
    return ClassicAddress(
        title=match["title"], host=match["host"].strip("[]"), port=int(match["port"])
    )


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _web(text: str) -> WebAddress:
    shown = re.split("[?#]", text)[0].rpartition("@")[2][:100]
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host:
        raise InputError(f"archive: {shown!r} is no http(s) address")
    if parts.username is not None or parts.password is not None:
        raise InputError("archive: an address holds no password; name a token's variable")
    if parts.query or parts.fragment:
        raise InputError(f"archive: {shown!r} has more than a host and a path")
    return WebAddress(base=urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "")))
