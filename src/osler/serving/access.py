"""Who gets in, and what is written down about it: every request passes here, whatever its path."""

import hashlib
import hmac
import logging
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from osler.serving.failure import ApiError, error_response
from osler.serving.gate import Gate
from osler.serving.meters import Meters
from osler.serving.settings import ServerSettings, is_loopback

LOG = logging.getLogger("osler.serving")

HEALTH = "/health"
METRICS = "/metrics"
HUNG_UP = 499


class Access:
    """ASGI middleware: request ids, hosts, tokens, draining, counting and the log.

    The log has ids, paths that exist, statuses and times: nothing that a client wrote.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServerSettings,
        gate: Gate,
        meters: Meters,
        paths: frozenset[str],
    ) -> None:
        self._app = app
        self._gate = gate
        self._meters = meters
        self._paths = paths
        self._token = None if settings.token is None else _digest(settings.token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = uuid.uuid4().hex
        scope["state"]["request_id"] = request_id
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            try:
                self._check(scope["path"], headers)
                if scope["path"] in (HEALTH, METRICS):
                    await self._app(scope, receive, send_and_note)
                else:
                    with self._gate.request():
                        await self._app(scope, receive, send_and_note)
            except ApiError as error:
                await error_response(error)(scope, receive, send_and_note)
            except ClientDisconnect:
                status = HUNG_UP
        finally:
            seconds = time.perf_counter() - start
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._meters.requests.add(path=path, status=str(status))
            if path not in (HEALTH, METRICS):
                self._meters.request_s.observe(seconds)
                LOG.info("%s %s %s %d %.3fs", request_id, scope["method"], path, status, seconds)

    def _check(self, path: str, headers: Headers) -> None:
        if self._token is None:
            # A web page may have its own name point to this machine, and then read what it says.
            if not is_loopback(_host(headers.get("host", ""))):
                raise ApiError(403, "without a token, requests must name this machine as localhost")
            return
        if path == HEALTH:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(_digest(token.strip().encode("latin-1")), self._token)
        if scheme.lower() != "bearer" or not right:
            raise ApiError(
                401,
                "a bearer token is needed, and this is not it",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _digest(token: bytes) -> bytes:
    """Of one length whatever the token's, so that comparing tells nothing about it."""
    return hashlib.sha256(token).digest()


def _host(header: str) -> str:
    """The name in a Host header, without the port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
