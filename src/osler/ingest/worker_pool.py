"""Child processes that decode, kept for the next file and replaced after a crash or a hang."""

import atexit
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from osler.errors import DicomError, InputError, UnreadableFileError
from osler.ingest.decode import is_dicom
from osler.ingest.image import Image
from osler.ingest.limits import TIMEOUT_S
from osler.ingest.watch import Watch
from osler.ingest.wire import receive_image, send

# -P: the working directory is not a place to import from.
_COMMAND = (sys.executable, "-P", "-m", "osler.ingest.decode_worker")
_PIPE_BYTES = 1 << 20
T = TypeVar("T")
_SOURCE_ROOT = str(Path(__file__).resolve().parents[2])
_watch = Watch()


class _Worker:
    """One child process; used by one thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        path = os.pathsep.join(filter(None, (_SOURCE_ROOT, os.environ.get("PYTHONPATH"))))
        # Address space is limited, and BLAS would reserve some of it for each of its threads.
        environment = os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
        self._expired = False
        # Unbuffered: a process that was forked in the middle of a write must not flush the rest.
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        for pipe in (self._process.stdin, self._process.stdout):
            _widen(pipe)

    @property
    def is_alive(self) -> bool:
        return not self._expired and self._process.poll() is None

    def ask(
        self,
        header: Mapping[str, Any],
        data: bytes,
        receive: Callable[[int], T],
        replies: int,
        timeout_s: float,
    ) -> list[T]:
        """Send one file and wait for what is asked of it.

        Args:
            header: what is asked.
            data: the file's bytes.
            receive: reads one reply from a pipe's file descriptor.
            replies: how many there will be.
            timeout_s: for each of them.

        Raises:
            InputError: the one that the file gave.
            TimeoutError: the worker was killed because it took too long.
            ChildProcessError: the worker died; the message says how.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answers: list[T] = []
        try:
            with _watch.limit(timeout_s, self._expire):
                send(self._process.stdin.fileno(), header, data)
                if replies:
                    answers.append(receive(self._process.stdout.fileno()))
            while len(answers) < replies:
                with _watch.limit(timeout_s, self._expire):
                    answers.append(receive(self._process.stdout.fileno()))
            return answers
        except (EOFError, BrokenPipeError, ValueError):
            self.close()
            if self._expired:
                raise TimeoutError(f"took longer than {timeout_s:g} s") from None
            raise ChildProcessError(_ending(self._process.returncode)) from None

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def close(self) -> None:
        """Kill and reap the process."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def abandon(self) -> None:
        """Let go of a process that belongs to the parent of this forked one."""
        self._process.returncode = 0  # not ours to wait for, says this to `Popen.__del__`
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class WorkerPool:
    """Decodes files in child processes, from any thread.

    Workers start when they are first needed, at most `size` at a time. A file that crashes its
    worker or holds it for more than `timeout_s` gives an error that names the file, and the next
    file gets a fresh worker.

    Args:
        size: files decoded at once; further callers wait.
        timeout_s: seconds for one reply.
        command: what to run as a worker.
    """

    def __init__(
        self, size: int, *, timeout_s: float = TIMEOUT_S, command: Sequence[str] = _COMMAND
    ) -> None:
        self._size = size
        self._timeout_s = timeout_s
        self._command = command
        self._start_over()

    def _start_over(self) -> None:
        self._slots = threading.BoundedSemaphore(self._size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()

    def decode(self, data: bytes, source: str) -> Image:
        """Decode one file's bytes in a child process.

        Raises:
            InputError: what `osler.ingest.decode.decode` raises for the file, or a DicomError or
                UnreadableFileError if the decoder crashed or took too long.
        """
        header = {"task": "decode", "source": source}
        return self.ask(header, data, receive_image)[0]

    def ask(
        self,
        header: Mapping[str, Any],
        data: bytes,
        receive: Callable[[int], T],
        *,
        replies: int = 1,
    ) -> list[T]:
        """Hand a file's bytes to a child process, with what is asked of them.

        Args:
            header: a task of the worker's with what belongs to it, and the file's name as "source".
            data: the file's bytes.
            receive: reads one reply from a pipe's file descriptor.
            replies: how many there will be; each has its own time.

        Raises:
            InputError: as `decode`.
        """
        with self._slots:
            worker = self._take()
            try:
                answers = worker.ask(header, data, receive, replies, self._timeout_s)
            except InputError:
                self._give_back(worker)
                raise
            except (TimeoutError, ChildProcessError) as error:
                self._discard(worker)
                kind = DicomError if is_dicom(data) else UnreadableFileError
                raise kind(f"{header['source']}: decoding was stopped: {error}") from None
            except BaseException:  # Ctrl-C, say: a reply that nobody read may stand in its pipe
                self._discard(worker)
                raise
            self._give_back(worker)
            return answers

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive:
                    return worker
                worker.close()
                self._all.discard(worker)
            worker = _Worker(self._command)
            self._all.add(worker)
            return worker

    def _give_back(self, worker: _Worker) -> None:
        # It is not if its time ran out between its answer and the end of the timer.
        if not worker.is_alive:
            self._discard(worker)
            return
        with self._lock:
            self._idle.append(worker)

    def _discard(self, worker: _Worker) -> None:
        worker.close()
        with self._lock:
            self._all.discard(worker)

    def close(self) -> None:
        """End all workers; later calls start new ones."""
        workers = self._all
        self._start_over()
        for worker in workers:
            worker.close()

    def forget(self) -> None:
        """In a forked process: leave the workers to the parent, and start with none."""
        workers = self._all
        self._start_over()
        for worker in workers:
            worker.abandon()


def _widen(pipe: IO[bytes] | None) -> None:
    """Let a pipe hold an image, or reader and writer would wait for each other at each 64 KiB."""
    assert pipe is not None
    with suppress(OSError):  # more than this user may have in pipes
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"the decoder failed (exit code {returncode})"
    return f"the decoder crashed ({signal.Signals(-returncode).name})"


WORKERS = min(4, os.cpu_count() or 1)
decoding_workers = WorkerPool(size=WORKERS)
atexit.register(decoding_workers.close)
os.register_at_fork(after_in_child=decoding_workers.forget)
os.register_at_fork(after_in_child=_watch.start_over)
