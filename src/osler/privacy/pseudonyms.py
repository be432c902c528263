"""What stands for an identity: UIDs, ids, names and days, all drawn from one secret key.

The same key gives the same pseudonyms in every run; without the key nobody can tell which identity
a pseudonym stands for, nor try out all that there could be.
"""

import base64
import hashlib
import hmac
import uuid

_LONGEST_SHIFT_DAYS = 3 * 365


class Pseudonyms:
    """One key's pseudonyms.

    Args:
        secret: the key; 32 random bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @property
    def fingerprint(self) -> str:
        """Tells keys apart, and says nothing of them."""
        return self._digest("key", "").hex()[:16]

    def uid(self, uid: str) -> str:
        """A new UID for a UID.

        >>> Pseudonyms(b"k").uid("1.2.3")[:5]
        '2.25.'

        Source: PS3.5 annex B.2.
        """
        return f"2.25.{self._uuid('uid', uid.strip(chr(0) + ' ')).int}"

    def resource_id(self, id: str) -> str:
        """A new logical id for a FHIR resource's; the same for all types of resource."""
        return str(self._uuid("id", id))

    def patient(self, identity: str) -> str:
        """What a patient is called, as "P-ABCDEFGHIJ"."""
        return f"P-{self._letters('patient', identity)}"

    def identifier(self, value: str) -> str:
        """What stands for a number of somebody or something, as "X-ABCDEFGHIJ"."""
        return f"X-{self._letters('identifier', value)}"

    def person(self, name: str) -> str:
        """What stands for a name other than the patient's, as "N-ABCDEFGHIJ"."""
        return f"N-{self._letters('person', ' '.join(name.casefold().split()))}"

    def shift_days(self, identity: str) -> int:
        """By how many days a patient's dates move: into the past, by up to three years."""
        number = int.from_bytes(self._digest("shift", identity)[:8])
        return -1 - number % _LONGEST_SHIFT_DAYS

    def _uuid(self, kind: str, value: str) -> uuid.UUID:
        return uuid.UUID(bytes=self._digest(kind, value)[:16], version=4)

    def _letters(self, kind: str, value: str) -> str:
        return base64.b32encode(self._digest(kind, value))[:10].decode()

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.digest(self._secret, f"{kind}\0{value}".encode(), hashlib.sha256)
