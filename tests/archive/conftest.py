"""Archives on loopback, which these tests alone may talk to."""

import gc
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from osler.archive.settings import LinkSettings
from tests.archive.classic_archive import TinyClassicArchive
from tests.archive.web_archive import TinyWebArchive

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))
            # pynetdicom leaves a socket to the garbage collector where the other side closed first.
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))


@pytest.fixture
def collected() -> Iterator[None]:
    """Have what is left to the garbage collector collected before the next test."""
    yield
    gc.collect()


@pytest.fixture
def link() -> LinkSettings:
    """Little patience, so that failures come soon."""
    return LinkSettings(timeout_s=5, attempts=3, wait_s=0.01)


@pytest.fixture
def web() -> Iterator[TinyWebArchive]:
    with TinyWebArchive() as archive:
        yield archive


@pytest.fixture
def classic(tmp_path: Path) -> Iterator[TinyClassicArchive]:
    with TinyClassicArchive() as archive:
        yield archive


@pytest.fixture
def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
