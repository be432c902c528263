"""`/v1/chat/completions` and `/v1/completions`."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, Future
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from osler.errors import GenerationCancelledError, OslerError
from osler.inference.continuation import Generation
from osler.serving.body import read_body
from osler.serving.events import Event, events, unless_hung_up
from osler.serving.failure import error_object, from_osler
from osler.serving.gate import Entry, Gate
from osler.serving.intake import Hold, Job
from osler.serving.meters import Meters
from osler.serving.replies import Form, Reply, sse
from osler.serving.served import Served, Work
from osler.serving.settings import ServerSettings

Begun = tuple[Job, list[Work]]

HEARTBEAT_S = 15.0  # proxies close a connection that is silent for a minute

_DONE = b"data: [DONE]\n\n"
_STILL_THERE = b": the answer is being made\n\n"
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """What an endpoint works with.

    Attributes:
        served: the models.
        settings: the server's.
        gate: its room.
        meters: its metrics.
        readers: threads that read requests and prepare images.
        carriers: threads that wait for answers; as many as answers may be in the making.
    """

    served: Served
    settings: ServerSettings
    gate: Gate
    meters: Meters
    readers: Executor
    carriers: Executor


class AnswerEndpoint:
    """One of the two protocols' endpoints, an ASGI application.

    Args:
        kitchen: what it works with.
        form: how it writes answers.
        read: makes a job of a body.
    """

    def __init__(self, kitchen: Kitchen, form: Form, read: Callable[[bytes, Hold], Job]) -> None:
        self._kitchen = kitchen
        self._form = form
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; all that it took is given back when it ends, however it does."""
        kitchen = self._kitchen
        request = Request(scope, receive)
        with kitchen.gate.entry() as entry:
            entry.take_answers(1)
            body = await read_body(request, entry, kitchen.settings)
            await unless_hung_up(receive, self._answer(body, entry, request, send))

    async def _answer(self, body: bytes, entry: Entry, request: Request, send: Send) -> None:
        begun = self._kitchen.readers.submit(self._begin, body, entry)
        try:
            job, works = await asyncio.wrap_future(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_call_off)
            raise
        reply = Reply(
            self._form,
            request_id=request.state.request_id,
            choices=len(job.choices),
            prompts=job.prompts,
            model=self._kitchen.served.name,
            notice=self._kitchen.served.notice,
        )
        if job.stream:
            await _send_stream(send, self._chunks(job, works, reply))
            return
        async with aclosing(self._events(works, None)) as stream:
            async for event in stream:
                if event is not None:
                    reply.take(*event)
        loop = asyncio.get_running_loop()
        whole = await loop.run_in_executor(self._kitchen.readers, reply.whole)
        await Response(whole, media_type="application/json")(request.scope, request.receive, send)

    def _begin(self, body: bytes, entry: Entry) -> Begun:
        """Read a request and hand its answers in, all or none; in a thread, as it is work."""
        job = self._read(body, entry.hold)
        entry.take_answers(len(job.choices) - 1)
        served, settings = self._kitchen.served, self._kitchen.settings
        works: list[Work] = []
        try:
            for prompt, params in job.choices:
                works.append(
                    served.engine.submit(
                        prompt, params, tenant=job.tenant, deadline_s=settings.timeout_s
                    )
                )
        except OslerError:
            for work in works:
                work.cancel()
            raise
        return job, works

    async def _chunks(
        self, job: Job, works: list[Work], reply: Reply
    ) -> AsyncGenerator[bytes, None]:
        yield reply.opening()
        try:
            async with aclosing(self._events(works, HEARTBEAT_S)) as stream:
                async for event in stream:
                    yield _STILL_THERE if event is None else reply.step(*event)
        except OslerError as error:
            yield sse(error_object(from_osler(error)))
            return
        if job.include_usage:
            yield reply.closing()
        yield _DONE

    async def _events(
        self, works: list[Work], heartbeat_s: float | None
    ) -> AsyncGenerator[Event | None, None]:
        """As `events`, counted."""
        meters = self._kitchen.meters
        start = time.perf_counter()
        begun: set[int] = set()
        stream = events(works, self._kitchen.carriers, heartbeat_s=heartbeat_s)
        async with aclosing(stream):
            async for event in stream:
                if event is not None:
                    if event[0] not in begun:
                        begun.add(event[0])
                        meters.first_token_s.observe(time.perf_counter() - start)
                    if isinstance(event[1], Generation):
                        meters.count(event[1])
                        if event[1].finish_reason == "cancelled":
                            raise GenerationCancelledError("the engine stopped before the end")
                yield event


def _call_off(begun: Future[Begun]) -> None:
    """For whom nobody waits any more."""
    if not begun.cancelled() and begun.exception() is None:
        for work in begun.result()[1]:
            work.cancel()


async def _send_stream(send: Send, chunks: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(chunks):
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
