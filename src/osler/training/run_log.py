"""What a run leaves to read: run.json, metrics.jsonl, curves.png, and a line of progress.

Only the first rank writes.
"""

import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import osler
from osler.training.curves import draw_curves
from osler.training.distributed import Ranks

log = logging.getLogger(__name__)

RUN = "run.json"
METRICS = "metrics.jsonl"
CURVES = "curves.png"


class RunLog:
    """The records of one run, from a step on.

    Args:
        out: the run's folder.
        ranks: all of them.
        steps: in all.
        first: steps that were done before; later lines of an interrupted run are dropped.
        unit: what speed is counted in.
        about: what else belongs in run.json.
    """

    def __init__(
        self,
        out: Path,
        ranks: Ranks,
        *,
        steps: int,
        first: int,
        unit: str,
        about: Mapping[str, Any],
    ) -> None:
        self._writes = ranks.rank == 0
        self._out = out
        self._unit = unit
        self._done = first
        self._loss: float | None = None
        self._bar = tqdm(
            total=steps,
            initial=first,
            desc="training",
            unit="step",
            disable=not self._writes,
        )
        self._last = time.monotonic()
        if not self._writes:
            return
        out.mkdir(parents=True, exist_ok=True)
        record = {
            **about,
            "first_step": first,
            "world_size": ranks.world,
            "device": str(ranks.device.type),
            "commit": _commit(),
            "environment": environment(),
        }
        write_whole(out / RUN, json.dumps(record, indent=2, default=str) + "\n")
        kept = [line for line in read_metrics(out) if line["step"] <= first]
        write_whole(out / METRICS, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = (out / METRICS).open("a", encoding="utf-8")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        if self._writes:
            self._file.close()
            draw_curves(read_metrics(self._out), self._out / CURVES)

    def step(self, done: int, loss: float, figures: Mapping[str, float], units: int) -> None:
        """Record a step."""
        now = time.monotonic()
        rate = units / max(now - self._last, 1e-9)
        self._last = now
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        self._bar.set_postfix_str(
            f"loss {self._loss:.4f}, {rate:,.0f} {self._unit}/s", refresh=False
        )
        self._bar.update()
        self._write({"step": done, "loss": loss, **figures, f"{self._unit}_per_s": round(rate, 1)})

    def evaluation(self, done: int, figures: Mapping[str, float]) -> None:
        """Record an evaluation."""
        if figures:
            self._write({"step": done, "evaluation": dict(figures)})
        self._last = time.monotonic()

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._writes:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; one that a kill cut in two is left out."""
    path = out / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def environment() -> dict[str, Any]:
    """What a run's figures may depend on besides its settings."""
    return {
        "osler": osler.__version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str | None:
    """The commit of the source tree that runs, where it is one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None
