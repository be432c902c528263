"""The library that all tests of the native engine use."""

import pytest

from osler.native.library import Library, Pool, library


@pytest.fixture(scope="session")
def native() -> Library:
    """The library with the kernels that it chose."""
    loaded = library()
    assert loaded is not None, "the library is not there: `make setup` builds it"
    return loaded


@pytest.fixture(scope="session")
def pool(native: Library) -> Pool:
    """Three threads, however many cores there are."""
    return native.pool(3)
