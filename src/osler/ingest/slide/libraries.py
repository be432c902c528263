"""The libraries of the extra `slides`, or the error that names it."""

import importlib
from typing import Any

from osler.errors import UnsupportedError


def slide_library(name: str) -> Any:
    """Import a library that reads slides.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:  # or its shared library is missing
        raise UnsupportedError(
            "a whole slide, which needs the extra `slides`: pip install 'osler[slides]'"
        ) from None
