"""The library of C kernels, loaded once: whether it is there, its calls, its pool of threads.

Three variables of the environment steer it. OSLER_NATIVE=0 switches it off, OSLER_NATIVE_KERNELS
names the kernels (as csrc/kernels.h lists them: "portable", "avx2", "amx" ...) instead of the best
ones, and OSLER_NATIVE_LIBRARY is another file in the place of the installed one.
"""

import ctypes
import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osler.native.buffers import is_aligned
from osler.native.formats import FORMATS, Matrix

_LOG = logging.getLogger(__name__)
_INSTALLED = Path(__file__).with_name("_osler.so")


class MatrixStruct(ctypes.Structure):
    """`osl_matrix` of csrc/linear.h; keeps the arrays that it points to."""

    _fields_ = (
        ("format", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("cols", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("data", ctypes.c_void_p),
        ("row_scale", ctypes.c_void_p),
    )
    matrix: Matrix

    @classmethod
    def of(cls, matrix: Matrix) -> "MatrixStruct":
        """What the kernels take a matrix as.

        Raises:
            ValueError: its data does not begin on a 64-byte boundary.
        """
        if not is_aligned(matrix.data):
            raise ValueError("packed weights begin on a 64-byte boundary")
        group = matrix.group or (0 if matrix.format == "bf16" else matrix.cols)
        scale = None if matrix.row_scale is None else matrix.row_scale.ctypes.data
        struct = cls(
            FORMATS[matrix.format],
            matrix.rows,
            matrix.cols,
            group,
            matrix.data.ctypes.data,
            scale,
        )
        struct.matrix = matrix
        return struct


class OutStruct(ctypes.Structure):
    """`osl_out` of csrc/linear.h."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("ldy", ctypes.c_int64),
        ("y", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class Pool:
    """Threads of the kernels; given to their calls as it is. Made by `Library.pool`.

    Attributes:
        threads: how many, the caller's counted.
        turn: held by whoever uses them, where several threads of the program may want to.
    """

    def __init__(self, library: "Library", threads: int) -> None:
        new = library.function("osl_pool_new", ctypes.c_void_p, ctypes.c_int32)
        count = library.function("osl_pool_threads", ctypes.c_int32, ctypes.c_void_p)
        free = library.function("osl_pool_free", None, ctypes.c_void_p)
        address = new(threads)
        if address is None:
            raise MemoryError("the system gives the native engine no threads")
        self._as_parameter_ = ctypes.c_void_p(address)
        self.threads: int = count(address)
        self.turn = threading.Lock()
        # Not at exit: a thread that the program left behind may still be computing.
        weakref.finalize(self, free, address).atexit = False


@dataclass(frozen=True)
class Library:
    """The loaded library.

    Attributes:
        handle: it.
        kernels: the name of the kernels that it chose.
    """

    handle: ctypes.CDLL
    kernels: str

    def function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """One of its calls.

        Args:
            name: as in C.
            result: its ctypes type; None for void.
            arguments: their ctypes types.
        """
        # Each time a new object: `handle.name` would be shared, and with it the types.
        call = self.handle[name]
        call.restype = result
        call.argtypes = arguments
        return call

    def pool(self, threads: int = 0) -> Pool:
        """Start threads for the kernels.

        Args:
            threads: how many, with the caller's; 0 for one on each core that the process may use.

        Raises:
            MemoryError: the system gives none.
        """
        return Pool(self, threads)


@functools.cache
def library() -> Library | None:
    """The library, or None where torch has to do; the log says why, once."""
    if os.environ.get("OSLER_NATIVE") == "0":
        return None
    loaded = _load(Path(os.environ.get("OSLER_NATIVE_LIBRARY") or _INSTALLED))
    if isinstance(loaded, str):
        _LOG.warning("osler runs on torch, without its native engine: %s", loaded)
        return None
    return loaded


def _load(path: Path) -> Library | str:
    """The library, or why it cannot be used."""
    if not path.exists():
        return f"{path.name} was not built, as where there is no C compiler"
    try:
        handle = ctypes.CDLL(os.fspath(path))
        known = handle.osl_cpu_known
        name = handle.osl_kernels_name
    except (OSError, AttributeError) as error:
        return f"{path.name} cannot be loaded ({error})"
    name.restype = ctypes.c_char_p
    kernels: str = name().decode()
    wanted = os.environ.get("OSLER_NATIVE_KERNELS")
    if wanted and kernels != wanted:
        return f"there are no kernels {wanted!r} for this processor"
    if not wanted and not known():
        return "this processor has no instructions that it knows (AVX2, ARM dot product)"
    return Library(handle, kernels)
