"""From the engine's blocking iterators to the event loop, and back when the client leaves."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from osler.inference.continuation import Generation, Piece
from osler.serving.served import Work

T = TypeVar("T")

Event = tuple[int, Piece | Generation]


async def events(
    works: Sequence[Work], executor: Executor, *, heartbeat_s: float | None = None
) -> AsyncGenerator[Event | None, None]:
    """What several answers give, as it comes; their works are cancelled when this is closed.

    Args:
        works: waited for in a thread each.
        executor: of the threads.
        heartbeat_s: give a None when nothing came for so long; None for never.

    Returns:
        The number of the work, and what came of it.

    Raises:
        OslerError: as iterating over a work.
    """
    loop = asyncio.get_running_loop()
    came: asyncio.Queue[Event | None] = asyncio.Queue()

    def carry(number: int, work: Work) -> None:
        try:
            for event in work:
                loop.call_soon_threadsafe(came.put_nowait, (number, event))
        finally:
            loop.call_soon_threadsafe(came.put_nowait, None)

    carriers = [
        loop.run_in_executor(executor, carry, number, work) for number, work in enumerate(works)
    ]
    try:
        ended = 0
        while ended < len(works):
            try:
                # Not `wait_for`: in Python 3.11 that loses a cancellation that meets a result.
                async with asyncio.timeout(heartbeat_s):
                    event = await came.get()
            except TimeoutError:
                yield None
                continue
            if event is not None:
                yield event
                continue
            ended += 1
            for carrier in carriers:
                if carrier.done():
                    carrier.result()
        await asyncio.gather(*carriers)
    finally:
        for work in works:
            work.cancel()
        # Each has its say heard, so that none is reported as an exception never retrieved.
        await asyncio.gather(*carriers, return_exceptions=True)


async def unless_hung_up(receive: Receive, wanted: Awaitable[T]) -> T:
    """Wait for a result, unless the client leaves first.

    Args:
        receive: of a request whose body has been read.
        wanted: cancelled when the client leaves.

    Raises:
        ClientDisconnect: it left.
    """
    work = asyncio.ensure_future(wanted)
    watch = asyncio.ensure_future(_hung_up(receive))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        for task in (work, watch):
            task.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
