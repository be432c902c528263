"""The pool does every item once, whatever threads there are and whoever calls."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32)


def _run(native, pool, count, chunk):
    """How often each item was done, and by which threads."""
    done = np.zeros(count + 1, np.int64)
    threads = set()
    guard = threading.Lock()

    def work(_context, thread, first, last):
        with guard:
            threads.add(thread)
            assert 0 <= first < last
            done[first:last] += 1

    run = native.function(
        "osl_pool_run", None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, WORK, ctypes.c_void_p
    )
    run(pool, count, chunk, WORK(work), None)
    return done, threads


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 40])
def test_every_item_is_done_once(native, threads):
    pool = native.pool(threads)
    assert pool.threads == threads
    for count in [0, 1, 2, 7, 64, 300]:
        for chunk in [-1, 1, 3, 64, 1000]:
            done, used = _run(native, pool, count, chunk)
            assert (done[:count] == 1).all()
            assert done[count] == 0
            assert used <= set(range(threads))


def test_the_callers_thread_may_change(native):
    pool = native.pool(4)
    results = []
    for _ in range(20):
        caller = threading.Thread(target=lambda: results.append(_run(native, pool, 50, 1)[0]))
        caller.start()
        caller.join()
    assert all((done[:50] == 1).all() for done in results)
    assert len(results) == 20


def test_callers_take_turns(native):
    pool = native.pool(3)
    results = []

    def call():
        for _ in range(20):
            results.append(_run(native, pool, 40, 1)[0])

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 80
    assert all((done[:40] == 1).all() for done in results)


def test_all_threads_take_part(native):
    """Each waits for the others, so that one alone would never end."""
    pool = native.pool(3)
    meeting = threading.Barrier(3, timeout=60)
    run = native.function(
        "osl_pool_run", None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, WORK, ctypes.c_void_p
    )
    missed = []

    def work(_context, _thread, _first, _last):
        try:
            meeting.wait()
        except threading.BrokenBarrierError:
            missed.append(True)

    for _ in range(5):
        run(pool, 3, 1, WORK(work), None)
    assert not missed


def test_pools_come_and_go(native):
    before = threading.active_count(), len(os.listdir("/proc/self/task"))
    for _ in range(30):
        _run(native, native.pool(5), 20, 1)
    assert threading.active_count() == before[0]
    assert len(os.listdir("/proc/self/task")) <= before[1] + 5


def test_the_caller_is_not_pinned(native):
    before = os.sched_getaffinity(0)
    _run(native, native.pool(0), 20, 1)
    assert os.sched_getaffinity(0) == before


def test_no_more_threads_than_cores_that_the_process_may_use():
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from osler.native.library import library\n"
        "print(library().pool().threads)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
