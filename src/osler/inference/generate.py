"""Answers from an engine for those who wait for them in one place."""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence

from osler.inference.continuation import Generation, Piece
from osler.inference.engine import Engine
from osler.inference.request import Request
from osler.inference.sampling import SamplingParams
from osler.preprocess.processor import Prompt


def generate(
    engine: Engine,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    tenant: str = "",
    cancel: threading.Event | None = None,
) -> Generator[Piece | Generation, None, None]:
    """Answer several prompts together, each as it would be alone.

    Closing the generator, or setting `cancel`, ends the work at the next token.

    Args:
        engine: the model at work.
        prompts: of any lengths, with or without images.
        params: how to choose tokens and when to stop, for all prompts.
        tenant: see `Engine.submit`.
        cancel: once set, every unfinished answer ends as "cancelled".

    Returns:
        Pieces of text as they settle, and behind the last piece of each prompt its `Generation`.

    Raises:
        PromptError: at once, where a prompt is empty, too long, or does not fit the model.
        QueueFullError: when the first event is taken, where the engine takes no more.
        NonFiniteError: while generating, where the model's scores are NaN or infinite.
    """
    return _events(engine.prepare(prompts, params, tenant=tenant, cancel=cancel))


def stream(
    engine: Engine,
    prompt: Prompt,
    params: SamplingParams,
    *,
    tenant: str = "",
    cancel: threading.Event | None = None,
) -> Generator[str, None, Generation]:
    """Answer one prompt as pieces of text, without the thought.

    Args:
        engine: the model at work.
        prompt: what to answer.
        params: how to choose tokens and when to stop.
        tenant: see `Engine.submit`.
        cancel: once set, the answer ends as "cancelled".

    Returns:
        The pieces; the generator's return value is the whole, whose `text` is the pieces joined.

    Raises:
        PromptError, QueueFullError, NonFiniteError: as `generate`.
    """
    return _answer_text(generate(engine, [prompt], params, tenant=tenant, cancel=cancel))


def complete(
    engine: Engine,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    tenant: str = "",
    cancel: threading.Event | None = None,
) -> list[Generation]:
    """Answer several prompts together and wait for all of them.

    Args:
        engine: the model at work.
        prompts: of any lengths, with or without images.
        params: how to choose tokens and when to stop, for all prompts.
        tenant: see `Engine.submit`.
        cancel: once set, every unfinished answer ends as "cancelled".

    Returns:
        One answer a prompt, in their order.

    Raises:
        PromptError, QueueFullError, NonFiniteError: as `generate`.
    """
    events = generate(engine, prompts, params, tenant=tenant, cancel=cancel)
    finished = [event for event in events if isinstance(event, Generation)]
    return sorted(finished, key=lambda generation: generation.index)


def _answer_text(
    events: Generator[Piece | Generation, None, None],
) -> Generator[str, None, Generation]:
    while isinstance(event := next(events), Piece):
        if not event.is_thought:
            yield event.text
    return event


def _events(hand_in: Callable[[], list[Request]]) -> Generator[Piece | Generation, None, None]:
    requests = hand_in()
    try:
        yield from _merged(requests)
    finally:
        for request in requests:
            if not request.ended:
                request.cancel()


def _merged(requests: list[Request]) -> Iterator[Piece | Generation]:
    """The events of all, as they come."""
    while unfinished := [request for request in requests if not request.ended]:
        ready = [request for request in unfinished if request.has_event()]
        for request in ready or unfinished[:1]:
            yield next(request)
