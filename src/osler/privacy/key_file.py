"""The file that holds the key: whoever has it can link pseudonyms to identities that they know."""

import os
import secrets
import stat
from pathlib import Path

from osler.errors import InputError

_KEY_BYTES = 32


def new_key() -> bytes:
    """A key that nobody keeps."""
    return secrets.token_bytes(_KEY_BYTES)


def read_or_make_key(path: Path) -> bytes:
    """The key in a file, which is made, for its owner only, where there is none.

    Raises:
        InputError: a file that is no key, or that others may read; or it cannot be made.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise InputError(f"{path}: the key cannot be read ({error.strerror})") from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        text = file.read(4 * _KEY_BYTES)
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: not a file with a key")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"{path}: others may read this key; chmod 600 it, or take a new one")
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise InputError(f"{path}: not a key that Osler made ({_KEY_BYTES} bytes as hex digits)")
    return key


def _make(path: Path) -> bytes:
    key = new_key()
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "w", encoding="ascii") as writer:
                writer.write(f"{key.hex()}\n")
            os.link(part, path)  # fails where another run has just made it
        finally:
            part.unlink(missing_ok=True)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise InputError(f"{path}: the key cannot be written ({error.strerror})") from None
    return key
