"""Reads the small JSON files of a checkpoint folder."""

import json
from pathlib import Path
from typing import Any

from osler.errors import CheckpointError


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        CheckpointError: it is not there, cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: not JSON, or truncated") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds no JSON object")
    return value


def read_json_object_if_there(path: Path) -> dict[str, Any]:
    """As `read_json_object`; empty where there is no such file."""
    return read_json_object(path) if path.exists() else {}
