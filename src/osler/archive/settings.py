"""How Osler talks to archives: patience, tries, names, keys."""

import math
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from osler.errors import InputError

_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,16}")


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """What holds for every connection to one archive.

    Attributes:
        title: the AE title that Osler calls itself by.
        timeout_s: the longest silence, and the longest wait for a connection.
        attempts: how often a step is tried before it fails.
        wait_s: before the second try; each further one waits twice as long.
        token: sent to DICOMweb services as a bearer token.
        tls: encrypts classic DICOM, and judges the certificates of https.
    """

    title: str = "OSLER"
    timeout_s: float = 60.0
    attempts: int = 4
    wait_s: float = 1.0
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        """Refuse what no connection can be made with."""
        check_title(self.title)
        if not (0 < self.timeout_s < math.inf):
            raise InputError("archive: the timeout must be a number of seconds above 0")
        if self.attempts < 1:
            raise InputError("archive: there must be at least one attempt")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise InputError("archive: the token has characters that no header takes")


def check_title(title: str) -> None:
    """Refuse what is no AE title.

    Raises:
        InputError: empty, over 16 characters, or with blanks or a backslash in it.

    Source: PS3.5 table 6.2-1, AE.
    """
    if not _TITLE.fullmatch(title):
        raise InputError(f"archive: {title[:20]!r} is no AE title of 1 to 16 characters")


def tls_of_client(
    ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """How to reach a server: its certificate is always checked.

    Args:
        ca: certificates to trust, PEM; else those of this machine.
        cert: one's own certificate, for servers that ask for it.
        key: its private key, unless it is in the same file.

    Raises:
        InputError: a file that is not there or holds no certificate.
    """
    return _loaded(ssl.Purpose.SERVER_AUTH, ca, cert, key)


def tls_of_server(cert: Path, key: Path | None = None, ca: Path | None = None) -> ssl.SSLContext:
    """How to be reached; with `ca`, only by those who bring a certificate of it.

    Raises:
        InputError: a file that is not there or holds no certificate.
    """
    context = _loaded(ssl.Purpose.CLIENT_AUTH, ca, cert, key)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _loaded(
    purpose: ssl.Purpose, ca: Path | None, cert: Path | None, key: Path | None
) -> ssl.SSLContext:
    for path in (ca, cert, key):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: there is no such file")
    try:
        context = ssl.create_default_context(purpose, cafile=ca)
        if cert is not None:
            # A key under a password is refused; asking at a terminal would hang a service.
            context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, ValueError):
        named = ", ".join(str(path) for path in (ca, cert, key) if path is not None)
        raise InputError(f"{named}: no usable PEM certificate or key") from None
    # PS3.15 B.12, the BCP 195 profile.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
