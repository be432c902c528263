"""Counts and times for Prometheus, in its text format."""

import bisect
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


class Counter:
    """A number that only grows, one for each set of labels."""

    kind = "counter"

    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self._values: dict[Labels, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, amount: float = 1, /, **labels: str) -> None:
        """Count more."""
        with self._lock:
            self._values[tuple(sorted(labels.items()))] += amount

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """Suffix of the name, labels and value of each series."""
        with self._lock:
            values = dict(self._values) or {(): 0.0}
        for labels, value in values.items():
            yield "", labels, value


class Reading:
    """A number that somebody else keeps, asked for when it is wanted.

    Args:
        kind: "gauge", or "counter" where it only grows.
    """

    def __init__(
        self, name: str, about: str, read: Callable[[], float], *, kind: str = "gauge"
    ) -> None:
        self.name = name
        self.about = about
        self.kind = kind
        self._read = read

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """As `Counter.samples`."""
        yield "", (), self._read()


class Histogram:
    """How often a value was at most each of some bounds."""

    kind = "histogram"

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self.name = name
        self.about = about
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Take one value in."""
        with self._lock:
            self._counts[bisect.bisect_left(self._bounds, value)] += 1
            self._sum += value

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """As `Counter.samples`."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        running = 0
        for bound, count in zip((*map(repr, self._bounds), "+Inf"), counts, strict=True):
            running += count
            yield "_bucket", (("le", bound),), running
        yield "_sum", (), total
        yield "_count", (), running


Metric = Counter | Reading | Histogram


def exposition(metrics: Iterable[Metric]) -> str:
    """Write metrics out as Prometheus reads them.

    >>> answers = Counter("answers_total", "Answers.")
    >>> answers.add(2, reason="stop")
    >>> print(exposition([answers]), end="")
    # HELP answers_total Answers.
    # TYPE answers_total counter
    answers_total{reason="stop"} 2

    Source: Prometheus text exposition format, version 0.0.4.
    """
    lines = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.about}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for suffix, labels, value in metric.samples():
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            shown = f"{{{inside}}}" if inside else ""
            lines.append(f"{metric.name}{suffix}{shown} {value:.10g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
