"""Limits of time."""

import threading
import time

from osler.ingest.watch import Watch


def test_what_takes_too_long_expires_once() -> None:
    watch, expired = Watch(), threading.Event()
    with watch.limit(60, lambda: None), watch.limit(0.05, expired.set):
        assert expired.wait(10)
        expired.clear()
    with watch.limit(60, lambda: None):
        assert not expired.is_set()


def test_what_ends_in_time_does_not_expire_later() -> None:
    watch, calls = Watch(), []
    with watch.limit(0.05, lambda: calls.append(1)):
        pass
    with watch.limit(0.1, lambda: calls.append(2)):
        while not calls:
            time.sleep(0.01)
    assert calls == [2]


def test_limits_of_many_threads() -> None:
    watch, expired = Watch(), []

    def run(number: int) -> None:
        is_over = threading.Event()
        timeout_s = 0.02 if number % 2 else 60

        def expire() -> None:
            expired.append(number)
            is_over.set()

        with watch.limit(timeout_s, expire):
            if number % 2:
                is_over.wait(10)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(expired) == list(range(1, 20, 2))


def test_a_forked_process_begins_anew() -> None:
    watch, expired = Watch(), threading.Event()
    with watch.limit(60, expired.set):
        watch.start_over()  # as if forked here
        with watch.limit(0.05, expired.set):
            assert expired.wait(10)
