"""A process that serves: from the first connection to the last answer."""

import asyncio
import copy
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType

import uvicorn

from osler.errors import ServerSettingsError
from osler.serving.access import LOG
from osler.serving.app import make_app
from osler.serving.gate import Gate
from osler.serving.served import Served
from osler.serving.settings import ServerSettings

# A connection of a client that is between two questions.
_KEEP_ALIVE_S = 75
# Beyond the longest answer, for its last bytes.
_GRACE_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """Serves until it is told to end; then ends what it has begun, and begins nothing new.

    While it drains, it goes on listening, so that whoever asks is told so rather than refused by
    the machine, which would look like a crash.

    Args:
        served: the models.
        settings: how much to take on, and from whom.
        bound: where to listen, of `bound_socket`.

    Attributes:
        url: where it listens.
    """

    def __init__(self, served: Served, settings: ServerSettings, bound: socket.socket) -> None:
        self._gate = Gate(settings)
        self._settings = settings
        config = uvicorn.Config(
            make_app(served, settings, self._gate),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(_GRACE_S),
        )
        super().__init__(config)
        # Its lines have whole addresses, and so what a client wrote there.
        logging.getLogger("uvicorn.access").disabled = True
        self._socket = bound
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def serve_until_told(self, on_ready: Callable[[], object] = lambda: None) -> None:
        """Serve, and return when a signal or `drain` came and all answers have ended."""
        self._on_ready = on_ready
        self.run(sockets=[self._socket])

    def drain(self) -> None:
        """Begin to end; to be called from any thread."""
        self._gate.is_draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        """Serve, then wait for what is being answered."""
        counter = 0
        while not self._gate.is_draining:
            await self.on_tick(counter)
            counter += 1
            await asyncio.sleep(0.1)
        LOG.info("shutting down: %d requests are being answered", self._gate.requests)
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_s + _GRACE_S
        while self._gate.requests and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """In the main thread: the first signal drains, the second ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On a signal."""
        if self._gate.is_draining:
            # Threads that are in the middle of a step would hold up any politer end.
            os._exit(128 + sig)
        self.drain()


def bound_socket(host: str, port: int) -> socket.socket:
    """Take an address. Nobody can connect to it before the server listens.

    Raises:
        ServerSettingsError: there is no such address here, or it is taken.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind)
    except OSError as error:
        raise ServerSettingsError(f"host {host!r}: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ServerSettingsError(f"{host}:{port}: {error.strerror}") from None
    return bound


class _PlaceOnly(logging.Formatter):
    """Writes of an exception what it was and where: its words may be a patient's."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and one for the exception."""
        record = copy.copy(record)
        record.exc_text = None  # what another formatter has made of it
        return super().format(record)

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        kind, _, trace = ei
        places = []
        while trace is not None:
            code = trace.tb_frame.f_code
            places.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}")
            trace = trace.tb_next
        return f"  {'' if kind is None else kind.__name__} at {' < '.join(reversed(places))}"


def log_to_stderr() -> None:
    """Send the server's log to standard error, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlaceOnly("%(asctime)s %(levelname)s %(message)s"))
    LOG.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    for name in (LOG.name, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
