"""Linear layers with packed weights: bandwidth with few tokens, arithmetic with many.

    python bench/linear.py

prints one line of JSON: for each table of kernels that this processor has, each format, the shapes
of the 4B and of the image encoder, and 1 to 512 tokens, what a layer reaches beside what the
machine can do (see probe.py) just before and after. Weights are random and come from memory, not
from a cache, as they do when a model is run. Every table has a process of its own.

Shape suffixes: T tokens, C columns (inputs), R rows (outputs).
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.probe import Probe
from osler.native.buffers import aligned_bytes
from osler.native.formats import GROUPS, Matrix, has_row_scale, packed_bytes, padded_rows
from osler.native.library import Library, MatrixStruct, OutStruct, Pool, library
from osler.native.linear import OUT_KINDS

TABLES = ("amx", "avx512", "avx512vnni", "avxvnni", "avx2", "neon", "portable")
FORMATS = ("int4", "int8", "bf16", "q4_0", "q8_0")
FEW = 8  # tokens for which memory is the limit, or ought to be


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A layer of a model."""

    name: str
    rows: int
    cols: int
    kind: str = "store"
    encoder: bool = False
    most_tokens: int = 512


SHAPES = (
    Shape(name="qkv", rows=4096, cols=2560),
    Shape(name="o", rows=2560, cols=2048, kind="add"),
    Shape(name="gate_up", rows=20480, cols=2560, kind="geglu"),
    Shape(name="down", rows=2560, cols=10240, kind="add"),
    Shape(name="head", rows=262208, cols=2560, most_tokens=FEW),
    Shape(name="vision_qkv", rows=3456, cols=1152, encoder=True),
    Shape(name="vision_fc1", rows=4304, cols=1152, kind="gelu", encoder=True),
    Shape(name="vision_fc2", rows=1152, cols=4304, kind="add", encoder=True),
)


def random_bytes(format: str, size_bytes: int) -> NDArray[np.uint8]:
    """Packed weights for any shape: a stretch of random values again and again."""
    generator = np.random.default_rng(0)
    unit = 544 * 288 * 16
    if format == "bf16":
        values = generator.standard_normal(unit // 2).astype(np.float32).view(np.uint32) >> 16
        stretch = values.astype(np.uint16).view(np.uint8)
    else:
        stretch = generator.integers(0, 256, unit, np.uint8)
    if format in ("q4_0", "q8_0"):  # scales of 1/1024 or so
        group = stretch.reshape(-1, 288 if format == "q4_0" else 544)
        group[:, -31::2] = 20
    memory = aligned_bytes(size_bytes)
    for start in range(0, size_bytes, unit):
        piece = memory[start : start + unit]
        piece[:] = stretch[: piece.size]
    return memory


class Layer:
    """Calls of one layer, each with other weights out of `memory`."""

    def __init__(
        self,
        native: Library,
        pool: Pool,
        format: str,
        shape: Shape,
        memory: NDArray[np.uint8],
        tokens: int,
    ) -> None:
        self._pool, self._calls = pool, 0
        size = packed_bytes(format, shape.rows, shape.cols)
        scale = np.full(padded_rows(shape.rows), 1e-3, np.float32)
        self.weights = [
            MatrixStruct.of(
                Matrix(
                    format=format,
                    rows=shape.rows,
                    cols=shape.cols,
                    group=0 if shape.encoder and format == "int8" else GROUPS[format],
                    data=memory[start : start + size],
                    row_scale=scale if has_row_scale(format) else None,
                )
            )
            for start in range(0, memory.size - size + 1, size)
        ]
        self.weight_bytes = size
        generator = np.random.default_rng(1)
        self._x_TC = generator.standard_normal((tokens, shape.cols)).astype(np.float32)
        columns = shape.rows // (2 if shape.kind == "geglu" else 1)
        self._y_TR = np.zeros((tokens, columns), np.float32)
        self._out = OutStruct(OUT_KINDS[shape.kind], columns, self._y_TR.ctypes.data, None)
        arguments = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        arguments += [ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p]
        self._linear = native.function("osl_linear", None, *arguments)
        room = native.function("osl_acts_bytes", ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int32)
        self._room = aligned_bytes(room(ctypes.byref(self.weights[0]), tokens))

    def __call__(self) -> None:
        """Multiply with the next weights."""
        weights = self.weights[self._calls % len(self.weights)]
        self._calls += 1
        self._linear(
            self._pool,
            ctypes.byref(weights),
            self._x_TC.ctypes.data,
            self._x_TC.shape[1],
            len(self._x_TC),
            ctypes.byref(self._out),
            self._room.ctypes.data,
        )


def median_seconds(layer: Layer, seconds: float) -> float:
    """Median time of a call, from runs through all weights."""
    layer()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        layer()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All of one table of kernels."""
    native = library()
    assert native is not None
    pool = native.pool(arguments.threads)
    probe = Probe(pool.threads, arguments.seconds)
    rows: list[dict[str, Any]] = []
    for format in arguments.formats:
        shapes = [
            shape
            for shape in SHAPES
            if (not arguments.shapes or shape.name in arguments.shapes)
            and (format in ("int8", "bf16") or not shape.encoder)
        ]
        peak = probe.peak_gops(native.kernels, "bf16" if format == "bf16" else "int8")
        for shape in shapes:
            size = packed_bytes(format, shape.rows, shape.cols)
            copies = -(-arguments.megabytes * 10**6 // size)
            memory = random_bytes(format, int(copies * size))
            for tokens in arguments.tokens:
                if tokens > shape.most_tokens:
                    continue
                layer = Layer(native, pool, format, shape, memory, tokens)
                before = probe.read_gbs(memory)
                seconds = median_seconds(layer, arguments.seconds)
                read_gbs = (before + probe.read_gbs(memory)) / 2
                gbs, gops = (
                    size / seconds / 1e9,
                    2 * shape.rows * shape.cols * tokens / seconds / 1e9,
                )
                rows.append(
                    {
                        "kernels": native.kernels,
                        "format": format,
                        "shape": shape.name,
                        "rows": shape.rows,
                        "cols": shape.cols,
                        "tokens": tokens,
                        "ms": round(seconds * 1e3, 3),
                        "gbs": round(gbs, 3),
                        "read_gbs": round(read_gbs, 3),
                        "of_read": round(gbs / read_gbs, 3),
                        "gops": round(gops, 3),
                        "peak_gops": peak and round(peak),
                        "of_peak": peak and round(gops / peak, 3),
                    }
                )
                if arguments.verbose:
                    sys.stderr.write(json.dumps(rows[-1]) + "\n")
    return rows


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tables", nargs="+", default=TABLES, help="tables of kernels, by name")
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--shapes", nargs="+", choices=[shape.name for shape in SHAPES])
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 4, 8, 64, 512])
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement, about")
    parser.add_argument("--megabytes", type=int, default=600, help="of weights, more than caches")
    parser.add_argument("--verbose", action="store_true", help="each row also to standard error")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run each table in a process of its own, and print all."""
    arguments = parse()
    if arguments.one:
        sys.stdout.write(json.dumps(measure(arguments)) + "\n")
        return
    rows: list[dict[str, Any]] = []
    for table in arguments.tables:
        environment = os.environ | {"OSLER_NATIVE_KERNELS": table}
        command = [sys.executable, "-m", "bench.linear", "--one", *sys.argv[1:]]
        probe = "from osler.native.library import library; import sys; sys.exit(library() is None)"
        there = subprocess.run(
            [sys.executable, "-c", probe], env=environment, stderr=subprocess.DEVNULL
        )
        if there.returncode == 0:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            rows += json.loads(done.stdout)
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
