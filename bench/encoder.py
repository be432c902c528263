"""One image through the So400m vision tower, native, and beside it OpenVINO.

    python -m bench.encoder
    python -m bench.encoder --peer /path/to/peers.py --peer-python /path/to/python

prints one line of JSON: for each table of kernels that this processor has, each format and each
size of image, the median seconds of an image, the share of what the machine's arithmetic allows
(see probe.py), the bytes that the tower works in and the peak memory of the process. Weights are
random, and every layer has its own. With --peer, every measurement of ours stands between two of
the peer's command `openvino-siglip` at the same size and precision.

Each measurement is made in a process of its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.probe import Probe
from osler.models.config import VisionConfig
from osler.native.buffers import aligned_bytes
from osler.native.encoder import VisionPatches
from osler.native.formats import Matrix
from osler.native.library import Library, Pool, library
from osler.native.packing import Packer

TABLES = ("amx", "avx512", "avx2", "portable")


class RandomTower:
    """Weights of a vision tower: one random matrix of each shape, copied for each layer."""

    def __init__(self, config: VisionConfig, format: str, native: Library, pool: Pool) -> None:
        self._config, self._format = config, format
        self._packer = Packer(native, pool)
        self._made: dict[tuple[int, int, str], Matrix] = {}

    def matrix(self, name: str) -> Matrix:
        """See `EncoderWeights.matrix`."""
        hidden, wide = self._config.hidden_size, self._config.intermediate_size
        patch = self._config.num_channels * self._config.patch_size**2
        rows, cols = {
            "qkv_proj": (3 * hidden, hidden),
            "out_proj": (hidden, hidden),
            "fc1": (wide, hidden),
            "fc2": (hidden, wide),
            "patch_embedding": (hidden, patch),
            "position_embedding": (self._config.grid**2, hidden),
        }[name.split(".")[-2]]
        return self._copy(rows, cols, self._format if ".layers." in name else "bf16")

    def _copy(self, rows: int, cols: int, format: str) -> Matrix:
        if (rows, cols, format) not in self._made:
            weight = np.random.default_rng(0).standard_normal((rows, cols), np.float32)
            weight *= cols**-0.5
            self._made[rows, cols, format] = self._packer.pack(weight, format, group=0)
        made = self._made[rows, cols, format]
        data = aligned_bytes(made.data.size)
        data[:] = made.data
        return Matrix(
            format=format,
            rows=rows,
            cols=cols,
            group=0,
            data=data,
            row_scale=made.row_scale,
        )

    def values(self, name: str) -> NDArray[np.float32]:
        """See `EncoderWeights.values`."""
        is_scale = "norm" in name and name.endswith("weight")
        hidden, wide = self._config.hidden_size, self._config.intermediate_size
        size = 3 * hidden if "qkv" in name else wide if "fc1" in name else hidden
        return np.full(size, float(is_scale), np.float32)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One table of kernels, one format, one size."""
    native = library()
    assert native is not None
    pool = native.pool(arguments.threads)
    (size,), (format,) = arguments.sizes, arguments.formats
    config = VisionConfig(image_size=size, num_hidden_layers=arguments.layers)
    tower = VisionPatches(config, RandomTower(config, format, native, pool), native, pool)
    pixels = np.random.default_rng(0).random((1, 3, size, size), np.float32) * 2 - 1
    times = []
    for _ in range(arguments.repeat + 1):
        start = time.perf_counter()
        tower(pixels)
        times.append(time.perf_counter() - start)
    seconds = float(np.median(times[1:]))  # the first touches the memory
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    patches, hidden = config.grid**2, config.hidden_size
    weights = 4 * hidden * hidden + 2 * hidden * config.intermediate_size
    products = 2 * patches * weights * arguments.layers
    attention = 4 * patches * patches * hidden * arguments.layers
    probe = Probe(pool.threads, arguments.seconds)
    peak = probe.peak_gops(native.kernels, format)
    attention_peak = probe.peak_gops(native.kernels, "bf16")
    least = peak and attention_peak and (products / peak + attention / attention_peak) / 1e9
    return {
        "kernels": native.kernels,
        "format": format,
        "size": size,
        "layers": arguments.layers,
        "threads": pool.threads,
        "seconds": round(seconds, 4),
        "seconds_27": round(seconds * 27 / arguments.layers, 3),
        "gops": round((products + attention) / seconds / 1e9, 1),
        "peak_gops": peak and round(peak),
        "of_peak": least and round(least / seconds, 3),
        "working_mb": round(tower.bytes / 1e6, 1),
        "rss_mb": round(rss_mb),
    }


def peer(arguments: argparse.Namespace, size: int, format: str) -> dict[str, Any]:
    """OpenVINO at the same size and precision."""
    command = [arguments.peer_python, arguments.peer, "openvino-siglip", "--size", str(size)]
    command += ["--dtype", format, "--layers", str(arguments.layers)]
    command += ["--repeat", str(arguments.repeat)]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tables", nargs="+", default=TABLES, help="tables of kernels, by name")
    parser.add_argument("--formats", nargs="+", default=["int8", "bf16"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[448, 896], help="of the image")
    parser.add_argument("--layers", type=int, default=27, help="fewer for a quick look")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each probe, about")
    parser.add_argument("--peer", help="peers.py, to measure OpenVINO between")
    parser.add_argument("--peer-python", default=sys.executable, help="one that has OpenVINO")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_one(arguments: argparse.Namespace, table: str, size: int, format: str) -> dict[str, Any]:
    """`measure` in another process; nothing where there is no such table."""
    command = [sys.executable, "-m", "bench.encoder", "--one", "--sizes", str(size)]
    command += ["--formats", format]
    for name in ("layers", "repeat", "threads", "seconds"):
        command += [f"--{name}", str(getattr(arguments, name))]
    environment = os.environ | {"OSLER_NATIVE_KERNELS": table}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure all in turn, and print it."""
    arguments = parse()
    if arguments.one:
        sys.stdout.write(json.dumps(measure(arguments) if library() else {}) + "\n")
        return
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        for format in arguments.formats:
            if arguments.peer:
                rows.append(peer(arguments, size, format))
            for table in arguments.tables:
                if found := run_one(arguments, table, size, format):
                    rows.append(found)
                    if arguments.peer:
                        rows.append(peer(arguments, size, format))
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
