"""What this server counts."""

from collections.abc import Callable, Iterator

from osler.inference.continuation import Generation
from osler.inference.stats import EngineStats
from osler.serving.gate import Gate
from osler.serving.metrics import Counter, Histogram, Metric, Reading, exposition

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)


class Meters:
    """The metrics of one server.

    Args:
        gate: counts what is under way.
        stats: tells what the engine does.

    Attributes:
        requests: by path and status.
        answers: by why they ended.
        request_s: from the first byte of a request to the last of its reply.
        first_token_s: from the engine's taking a prompt on to its first token's text.
    """

    def __init__(self, gate: Gate, stats: Callable[[], EngineStats]) -> None:
        self.requests = Counter("osler_requests_total", "Requests answered, by path and status.")
        self.answers = Counter("osler_answers_total", "Answers ended, by finish_reason.")
        self.request_s = Histogram("osler_request_seconds", "Time of a request.", _SECONDS)
        self.first_token_s = Histogram(
            "osler_first_token_seconds", "Time to an answer's first text.", _SECONDS
        )
        self._queue_s = Histogram(
            "osler_queue_seconds", "Time an answer waits for the engine.", _SECONDS
        )
        self._decode_s = Histogram(
            "osler_decode_seconds", "Time of an answer after its first token.", _SECONDS
        )
        self._prompt_tokens = Counter("osler_prompt_tokens_total", "Tokens of prompts.")
        self._cached_tokens = Counter(
            "osler_prompt_cache_hit_tokens_total", "Tokens of prompts that were known already."
        )
        self._new_tokens = Counter("osler_generated_tokens_total", "Tokens of answers.")
        self.embeddings = Counter("osler_embeddings_total", "Embeddings made, by kind.")
        self._all: tuple[Metric, ...] = (
            self.requests,
            self.request_s,
            Reading("osler_requests_open", "Requests being answered.", lambda: gate.requests),
            Reading("osler_answers_open", "Answers waiting or being made.", lambda: gate.answers),
            Reading("osler_held_bytes", "Memory of bodies and images.", lambda: gate.held_bytes),
            self.answers,
            self.first_token_s,
            self._queue_s,
            self._decode_s,
            self._prompt_tokens,
            self._cached_tokens,
            self._new_tokens,
            self.embeddings,
            *_of_engine(stats),
        )

    def count(self, generation: Generation) -> None:
        """Count one answer that has ended."""
        timings = generation.timings
        self.answers.add(finish_reason=generation.finish_reason)
        self._prompt_tokens.add(timings.prompt_tokens)
        self._new_tokens.add(timings.new_tokens)
        self._cached_tokens.add(generation.cached_tokens)
        self._queue_s.observe(timings.queue_s)
        self._decode_s.observe(timings.decode_s)

    def text(self) -> str:
        """All of them, as Prometheus reads them."""
        return exposition(self._all)


def _of_engine(stats: Callable[[], EngineStats]) -> Iterator[Metric]:
    yield Reading("osler_engine_running", "Answers that are worked on.", lambda: stats().running)
    yield Reading("osler_engine_waiting", "Answers that wait.", lambda: stats().waiting)
    yield Reading("osler_pages", "Pages of keys and values.", lambda: stats().pages_total)
    yield Reading("osler_pages_used", "Pages of answers in the making.", lambda: stats().pages_used)
    yield Reading("osler_pages_kept", "Pages of what is known.", lambda: stats().pages_kept)
    for name, about, read in (
        ("drafted_tokens", "Tokens that were guessed.", lambda: stats().drafted_tokens),
        ("accepted_tokens", "Guesses that were right.", lambda: stats().accepted_tokens),
        ("preemptions", "Answers that lost their place.", lambda: stats().preemptions),
    ):
        yield Reading(f"osler_{name}_total", about, read, kind="counter")
