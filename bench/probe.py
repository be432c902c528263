"""What the machine can do at most, measured beside what is compared with it."""

import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SOURCE = Path(__file__).with_name("probe.c")
_PIECE = 256  # bytes that the probe reads at once


class Probe:
    """Reads memory and multiplies in registers on some threads at once.

    Args:
        threads: how many.
        seconds: about how long a measurement of arithmetic takes.
    """

    def __init__(self, threads: int, seconds: float) -> None:
        self._threads, self._seconds = threads, seconds
        self._pool = ThreadPoolExecutor(threads)
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "probe.so"
            command = ["cc", "-O3", "-std=gnu11", "-shared", "-fPIC"]
            subprocess.run([*command, str(_SOURCE), "-o", str(library)], check=True)
            self._library = ctypes.CDLL(str(library))
        self._library.probe_read.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._library.probe_read.restype = ctypes.c_uint64
        self._library.probe_peak.argtypes = [ctypes.c_char_p, ctypes.c_int64]
        self._library.probe_peak.restype = ctypes.c_double

    def read_gbs(self, memory: NDArray[np.uint8], repeats: int = 3) -> float:
        """Median bandwidth of reading some memory once, 10^9 bytes a second."""
        part = memory.size // self._threads // _PIECE * _PIECE
        starts = [memory.ctypes.data + thread * part for thread in range(self._threads)]
        seconds = [self._timed(lambda at: self._library.probe_read(at, part), starts)]
        while len(seconds) < repeats:
            seconds.append(self._timed(lambda at: self._library.probe_read(at, part), starts))
        return part * self._threads / float(np.median(seconds)) / 1e9

    def peak_gops(self, kernels: str, kind: str) -> float | None:
        """Operations of a table of kernels in registers, 10^9 a second; a product is two.

        Args:
            kernels: its name.
            kind: "int8" or "bf16".

        Returns:
            The best of some runs, or None where nobody wrote a probe.
        """
        name, steps, best, peak = f"{kernels} {kind}".encode(), 1000, 0.0, self._library.probe_peak
        if not peak(name, 1):
            return None
        end = time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            done = sum(self._pool.map(peak, [name] * self._threads, [steps] * self._threads))
            passed = time.perf_counter() - start
            best = max(best, done / passed / 1e9)
            if passed < self._seconds / 10:
                steps *= 2
        return best

    def _timed(self, work: Callable[[int], int], items: list[int]) -> float:
        start = time.perf_counter()
        list(self._pool.map(work, items))
        return time.perf_counter() - start
