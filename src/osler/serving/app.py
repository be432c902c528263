"""The HTTP application: paths and what stands behind them."""

import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from osler.errors import OslerError
from osler.serving.access import HEALTH, METRICS, Access
from osler.serving.answers import AnswerEndpoint, Kitchen
from osler.serving.embeddings import EmbeddingEndpoint
from osler.serving.failure import (
    ApiError,
    on_any_error,
    on_http_exception,
    on_osler_error,
    on_validation_error,
)
from osler.serving.gate import Gate
from osler.serving.intake import Intake
from osler.serving.meters import Meters
from osler.serving.metrics import CONTENT_TYPE
from osler.serving.replies import ChatForm, CompletionForm
from osler.serving.served import Served
from osler.serving.settings import ServerSettings

READERS = 4


def make_app(served: Served, settings: ServerSettings, gate: Gate) -> Starlette:
    """Make the application.

    Args:
        served: the models.
        settings: who gets in, and how much is taken on.
        gate: the server's room, which also tells it that the server is to end.
    """
    meters = Meters(gate, served.engine.stats)
    # By name: a process's threads are the first thing to look at when it hangs.
    readers = ThreadPoolExecutor(READERS, "osler-read")
    carriers = ThreadPoolExecutor(settings.max_requests, "osler-carry")
    encoding = ThreadPoolExecutor(1, "osler-encode")
    kitchen = Kitchen(
        served=served,
        settings=settings,
        gate=gate,
        meters=meters,
        readers=readers,
        carriers=carriers,
    )
    intake = Intake(served, settings)
    cards = served.cards(int(time.time()))

    async def health(_: Request) -> JSONResponse:
        if gate.is_draining:
            return JSONResponse({"status": "shutting down"}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(_: Request) -> PlainTextResponse:
        return PlainTextResponse(meters.text(), headers={"content-type": CONTENT_TYPE})

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": list(cards.values())})

    async def model(request: Request) -> JSONResponse:
        if (card := cards.get(request.path_params["name"])) is None:
            raise ApiError(404, "there is no such model here", code="model_not_found")
        return JSONResponse(card)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        yield
        for executor in (readers, carriers, encoding):
            executor.shutdown(wait=False, cancel_futures=True)

    routes = [
        Route(HEALTH, health),
        Route(METRICS, metrics),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route(
            "/v1/chat/completions",
            AnswerEndpoint(kitchen, ChatForm(served.processor.tokenizer), intake.chat),
            methods=["POST"],
        ),
        Route(
            "/v1/completions",
            AnswerEndpoint(kitchen, CompletionForm(served.processor.tokenizer), intake.completion),
            methods=["POST"],
        ),
        Route(
            "/v1/embeddings",
            EmbeddingEndpoint(
                served.encoder, settings=settings, gate=gate, meters=meters, encoding=encoding
            ),
            methods=["POST"],
        ),
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            HTTPException: on_http_exception,
            OslerError: on_osler_error,
            ValidationError: on_validation_error,
            Exception: on_any_error,
        },
        middleware=[
            Middleware(
                Access,
                settings=settings,
                gate=gate,
                meters=meters,
                paths=frozenset(route.path for route in routes),
            )
        ],
    )
