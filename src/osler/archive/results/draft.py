"""A draft on its way into an archive: the words, and what must be known of where they came from."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from osler.errors import InputError

_MOST_BYTES = 16 << 20
# What DICOM's texts may not hold (PS3.5 6.1.3).
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


class Draft(BaseModel):
    """An answer as `osler ask --json` prints it; fields that are not needed here are passed over.

    Attributes:
        text: what the model wrote.
        notice: what a reader must know about it: that it is no medical device's, for one.
        model: its name.
        version: its version.
        input_sha256: digests of the files that it was asked about, in reading order.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    text: str
    notice: str
    model: str
    version: str
    input_sha256: tuple[str, ...]

    @field_validator("text", "notice", "model", "version")
    @classmethod
    def _printable(cls, text: str) -> str:
        text = _CONTROLS.sub("", text).strip()
        if not text:
            raise ValueError("empty")
        return text

    @field_validator("input_sha256")
    @classmethod
    def _some_inputs(cls, digests: tuple[str, ...]) -> tuple[str, ...]:
        if not digests:
            raise ValueError("an answer without an image belongs to no study")
        return digests

    @property
    def provenance(self) -> str:
        """Model, version and inputs in a few words."""
        digests = ", ".join(dict.fromkeys(self.input_sha256))
        return f"Model {self.model}, version {self.version}. SHA-256 of the input: {digests}"


def read_draft(path: Path) -> Draft:
    """Read what `osler ask --json` has printed.

    Raises:
        InputError: no such file, or not such an answer.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: far too long for an answer of `osler ask --json`")
        return Draft.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(f"{path}: no answer of `osler ask --json` ({reason})") from None
