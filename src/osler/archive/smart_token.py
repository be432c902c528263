"""Access tokens by SMART Backend Services: a signed assertion in exchange for a short-lived token.

Source: SMART App Launch 2, Backend Services and Client Authentication: Asymmetric; RFC 7523.
"""

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from osler.archive.address import is_loopback
from osler.errors import ArchiveError, InputError

_T = TypeVar("_T")

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_S = 300  # the longest that a server accepts
_EARLY_S = 30.0  # before its end a token counts as over
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BackendClient:
    """Who asks for a token.

    Attributes:
        client_id: as the server registered it.
        key_file: the private key whose public half it registered: a JWK (JSON) or PEM; RSA, or
            EC on P-384.
        scope: what to ask for; None for all that may be read, in the words of the server's version.
    """

    client_id: str
    key_file: Path
    scope: str | None = None


class _Configuration(msgspec.Struct):
    """`.well-known/smart-configuration`."""

    token_endpoint: str
    capabilities: list[str] = []


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 60.0


@dataclass
class TokenSource:
    """Gets tokens for one server, and a new one when the last is over.

    Attributes:
        base: the FHIR server's address.
        client: who asks.
        http: asks.
    """

    base: str
    client: BackendClient
    http: httpx2.Client
    _token: str = field(default="", repr=False)
    _ends_s: float = 0.0

    def token(self) -> str:
        """A token that holds for a while.

        Raises:
            ArchiveError: the server has no such service, or refuses.
            InputError: the key cannot be used.
        """
        if time.monotonic() >= self._ends_s:
            found = self._ask()
            self._token = found.access_token
            self._ends_s = time.monotonic() + max(found.expires_in - _EARLY_S, 0.0)
        return self._token

    def _ask(self) -> _Token:
        url = f"{self.base}/.well-known/smart-configuration"
        service = self._answer(self.http.get(url, headers={"accept": "application/json"}), url)
        configuration = self._read(service, _Configuration, "names no token service")
        endpoint = configuration.token_endpoint
        parts = urlsplit(endpoint)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ArchiveError(f"{self.base}: its token service is not encrypted")
        version_2 = "permission-v2" in configuration.capabilities
        form = {
            "grant_type": "client_credentials",
            "scope": self.client.scope or ("system/*.rs" if version_2 else "system/*.read"),
            "client_assertion_type": _ASSERTION,
            "client_assertion": assertion(self.client, endpoint),
        }
        answer = self._answer(self.http.post(endpoint, data=form), "the token service")
        return self._read(answer, _Token, "answers without a token")

    def _answer(self, response: httpx2.Response, what: str) -> bytes:
        if response.status_code != 200:
            # Never the answer's words, which may hold what was sent.
            raise ArchiveError(f"{self.base}: {what} answers {response.status_code}")
        return response.content[:_MOST_BYTES]

    def _read(self, data: bytes, kind: type[_T], fault: str) -> _T:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, RecursionError):
            raise ArchiveError(f"{self.base}: {fault}") from None


def assertion(client: BackendClient, audience: str) -> str:
    """A signed statement of who asks, good for one use within five minutes.

    Args:
        client: who asks.
        audience: the token service that it is for.

    Raises:
        InputError: the key file cannot be used, or the library that signs is missing.
    """
    try:
        import jwt
    except ImportError:
        raise InputError("signing for a token needs pip install 'osler[smart]'") from None
    key, algorithm, key_id = _key(client.key_file)
    now = int(time.time())
    claims = {
        "iss": client.client_id,
        "sub": client.client_id,
        "aud": audience,
        "jti": str(uuid.uuid4()),
        "iat": now,
        "exp": now + _ASSERTION_S,
    }
    return jwt.encode(claims, key, algorithm, {"kid": key_id} if key_id else None)


def _key(path: Path) -> tuple[Any, str, str]:
    """A private key, the algorithm that it signs with, and its name; "" where it has none."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        data = path.read_bytes()
        key_id = ""
        if data.lstrip().startswith(b"{"):
            jwk = msgspec.json.decode(data, type=dict[str, Any])
            key_id = str(jwk.get("kid", ""))
            key = jwt.PyJWK.from_dict(jwk).key
        else:
            key = load_pem_private_key(data, password=None)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, msgspec.MsgspecError, jwt.PyJWTError):
        raise InputError(f"{path}: no private key in PEM or JWK without a password") from None
    if isinstance(key, RSAPrivateKey):
        return key, "RS384", key_id
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1):
        return key, "ES384", key_id
    raise InputError(f"{path}: neither an RSA key nor an EC key on P-384")
