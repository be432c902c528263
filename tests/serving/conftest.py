"""Servers on loopback, which these tests alone may talk to."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image as Picture

import osler
from osler.preprocess.processor import Processor
from osler.serving.served import Engine, Served
from osler.serving.server import Server, bound_socket
from osler.serving.settings import ServerSettings
from osler.tasks.encoder import ImageTextEncoder
from osler.testing.dicom import make_dicom
from tests.serving.scripted import ScriptedEngine

HERE = Path(__file__).parent
NOTICE = "Scripted."
WEB = httpx2.Client(trust_env=False, timeout=60)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))


@contextmanager
def running(served: Served, **settings: Any) -> Iterator[str]:
    """A server in a thread of its own; gives its address."""
    ready = threading.Event()
    server = Server(served, ServerSettings(**settings), bound_socket("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_until_told, args=(ready.set,))
    thread.start()
    try:
        assert ready.wait(30)
        yield server.url
    finally:
        server.drain()
        thread.join(30)
        assert not thread.is_alive()


def client_of(url: str, token: str = "unused") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, timeout=60)


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.fixture(scope="session")
def processor(medgemma_folder: Path) -> Processor:
    return Processor.from_folder(medgemma_folder)


@pytest.fixture(scope="session")
def encoder(medsiglip_folder: Path) -> ImageTextEncoder:
    return osler.load_encoder(medsiglip_folder)


def served_by(
    engine: Engine, processor: Processor, encoder: ImageTextEncoder | None = None
) -> Served:
    return Served(
        name="scripted", notice=NOTICE, processor=processor, engine=engine, encoder=encoder
    )


@pytest.fixture(scope="module")
def shared(processor: Processor) -> Iterator[tuple[ScriptedEngine, str]]:
    """One server for all tests of a file: an engine and the address."""
    engine = ScriptedEngine(processor.tokenizer)
    with running(served_by(engine, processor)) as url:
        yield engine, url


@pytest.fixture
def engine(shared: tuple[ScriptedEngine, str]) -> ScriptedEngine:
    shared[0].reset()
    return shared[0]


@pytest.fixture
def url(shared: tuple[ScriptedEngine, str], engine: ScriptedEngine) -> str:
    return shared[1]


@pytest.fixture(scope="module")
def client(shared: tuple[ScriptedEngine, str]) -> Iterator[openai.OpenAI]:
    with client_of(shared[1]) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def _close_web() -> Iterator[None]:
    yield
    WEB.close()


@pytest.fixture(scope="session")
def png() -> bytes:
    file = BytesIO()
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Picture.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def dicom() -> bytes:
    stored = np.random.default_rng(1).integers(0, 4096, (48, 64), dtype=np.uint16)
    return make_dicom(stored, bits_stored=12, Modality="CR")
