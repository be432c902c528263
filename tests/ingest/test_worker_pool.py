"""Crashes, hangs and forks: each costs one file an error, and nothing else."""

import json
import os
import struct
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from osler.errors import DicomError, UnreadableFileError, UnsupportedError
from osler.ingest import read_image_bytes
from osler.ingest.facts import FileFacts
from osler.ingest.image import Image, Voi
from osler.ingest.limits import MIN_WORKER_BYTES
from osler.ingest.wire import (
    receive,
    receive_image,
    receive_record,
    send,
    send_error,
    send_image,
    send_record,
)
from osler.ingest.worker_pool import WorkerPool, decoding_workers
from osler.testing.dicom import make_dicom
from osler.testing.series import make_frames

GREY = np.arange(12, dtype=np.uint16).reshape(3, 4)
GOOD = make_dicom(GREY)

# The real worker, but for files that hold one of these words.
WORKER = """
import os, sys, time
from osler.ingest import decode_worker
really = decode_worker.decode

def decode(data, source):
    if data.endswith(b"abort"):
        os.abort()
    if data.endswith(b"unforeseen"):
        raise ZeroDivisionError(data)
    if data.endswith(b"hang"):
        time.sleep(600)
    if data.endswith(b"greedy"):
        bytearray(1 << 40)
    if data.endswith(b"chatty"):
        os.write(1, b"a codec prints what it likes")
        print("and so does Python", flush=True)
        return really(data[:-6], source)
    return really(data, source)

decode_worker.decode = decode
decode_worker.serve(decode_worker.decoding_work)
"""
COMMAND = (sys.executable, "-P", "-c", WORKER)


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    workers = WorkerPool(size=1, command=COMMAND)
    yield workers
    workers.close()


def _no_zombies() -> None:
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    assert pid == 0


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (b"abort", r"the decoder crashed \(SIGABRT\)"),
        (b"unforeseen", r"the decoder failed \(exit code 1\)"),
    ],
)
def test_a_crash_is_one_error_and_the_next_file_is_read(
    pool: WorkerPool, word: bytes, reason: str
) -> None:
    with pytest.raises(DicomError, match=rf"^a\.dcm: decoding was stopped: {reason}$"):
        pool.decode(GOOD + word, "a.dcm")
    _no_zombies()
    with pytest.raises(UnreadableFileError, match=rf"^b\.png: decoding was stopped: {reason}$"):
        pool.decode(b"\x89PNG" + word, "b.png")
    assert pool.decode(GOOD, "c.dcm").source == "c.dcm"


def test_a_hang_is_killed(pool: WorkerPool) -> None:
    pool.decode(GOOD, "warm.dcm")
    pool._timeout_s = 0.5
    with pytest.raises(DicomError, match=r"^a\.dcm: .*took longer than 0\.5 s$"):
        pool.decode(GOOD + b"hang", "a.dcm")
    _no_zombies()


def test_a_file_that_wants_too_much_memory(pool: WorkerPool) -> None:
    with pytest.raises(UnsupportedError, match=rf"a\.dcm: .* more than {MIN_WORKER_BYTES:,} bytes"):
        pool.decode(GOOD + b"greedy", "a.dcm")
    assert pool.decode(GOOD, "b.dcm").size_px == (3, 4)


def test_what_a_codec_prints_does_not_reach_the_reply(
    pool: WorkerPool, capfd: pytest.CaptureFixture[str]
) -> None:
    np.testing.assert_array_equal(pool.decode(GOOD + b"chatty", "a.dcm").values, GREY)
    assert capfd.readouterr() == ("", "")


def test_frames_before_a_wrong_one_are_not_left_in_the_pipe(pool: WorkerPool) -> None:
    data = make_frames([GREY, GREY + 1, GREY + 2])
    header = {"task": "frames", "source": "a.dcm", "frames": [2, 0, 9]}
    with pytest.raises(DicomError, match=r"^a\.dcm: there is no frame 10$"):
        pool.ask(header, data, receive_image, replies=3)
    images = pool.ask({**header, "frames": [2, 0]}, data, receive_image, replies=2)
    for image, number in zip(images, (2, 0), strict=True):
        np.testing.assert_array_equal(image.values, GREY + number)
    assert pool.ask({**header, "frames": []}, data, receive_image, replies=0) == []
    assert pool.decode(GOOD, "b.dcm").source == "b.dcm"


def test_a_worker_that_answers_out_of_turn_is_ended(pool: WorkerPool) -> None:
    pool.decode(GOOD, "a.dcm")
    with pytest.raises(DicomError, match=r"^a\.dcm: decoding was stopped"):
        pool.ask({"task": "describe", "source": "a.dcm", "whole": True}, GOOD, receive_image)
    assert pool.decode(GOOD, "b.dcm").source == "b.dcm"


def test_an_error_of_the_files_keeps_its_worker(pool: WorkerPool) -> None:
    first = pool.decode(GOOD, "a.dcm")
    workers = list(pool._all)
    with pytest.raises(UnreadableFileError, match=r"b\.dcm: neither DICOM"):
        pool.decode(b"text", "b.dcm")
    assert pool.decode(GOOD, "a.dcm").sha256 == first.sha256
    assert list(pool._all) == workers


def test_a_worker_that_died_while_idle_is_replaced(pool: WorkerPool) -> None:
    pool.decode(GOOD, "a.dcm")
    (worker,) = pool._all
    worker._process.kill()
    worker._process.wait()
    assert pool.decode(GOOD, "b.dcm").size_px == (3, 4)
    assert worker not in pool._all


def test_many_threads() -> None:
    pool = WorkerPool(size=2)
    images = [np.full((5, 7), value, np.uint16) for value in range(12)]
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(3):
            got = pool.decode(make_dicom(images[number]), f"{number}.dcm")
            if got.source != f"{number}.dcm" or not np.array_equal(got.values, images[number]):
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 1 <= len(pool._all) <= 2
    pool.close()
    _no_zombies()


def test_a_forked_process_starts_its_own_workers() -> None:
    read_image_bytes(GOOD, "parent.dcm")
    (inherited, *_) = decoding_workers._all
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        # A forked pytest must not go on as one; its verdict is its exit code.
        code = 1
        try:
            forgot = not decoding_workers._all
            image = read_image_bytes(GOOD, "child.dcm")
            code = 0 if forgot and image.source == "child.dcm" else 2
            decoding_workers.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert inherited.is_alive
    assert read_image_bytes(GOOD, "parent.dcm").source == "parent.dcm"


def test_workers_end_with_their_reader(pool: WorkerPool) -> None:
    pool.decode(GOOD, "a.dcm")
    (worker,) = pool._all
    assert worker._process.stdin is not None
    worker._process.stdin.close()  # what the kernel does when the reading process dies
    assert worker._process.wait(timeout=60) == 0


# --- the wire ----------------------------------------------------------------------------------

PIXELS = np.array([[0.5, -1000.0]], np.float32)
TABLE = np.array([3, 2, 1], np.int64)


@pytest.mark.parametrize(
    "image",
    [
        Image(values=PIXELS, space="modality", source="é\n", sha256="0", decoder="x"),
        Image(
            values=np.zeros((2, 1, 3), np.uint8),
            space="display",
            source="a",
            sha256="0",
            decoder="x",
            modality="US",
        ),
        Image(
            values=PIXELS.T,
            space="modality",
            source="a",
            sha256="0",
            decoder="x",
            monochrome1=True,
            voi=Voi(
                window_centers=(40.0, 1.5),
                window_widths=(400.0, 2.0),
                function="SIGMOID",
                lut=TABLE,
                lut_first=-7,
                lut_bits=12,
            ),
        ),
    ],
)
def test_images_cross_whole(image: Image) -> None:
    reader, writer = os.pipe()
    send_image(writer, image)
    got = receive_image(reader)
    np.testing.assert_array_equal(got.values, image.values)
    assert got.values.dtype == image.values.dtype
    for name in ("space", "source", "sha256", "decoder", "modality", "monochrome1"):
        assert getattr(got, name) == getattr(image, name)
    if image.voi is None:
        assert got.voi is None
    else:
        assert got.voi is not None
        assert got.voi.lut is not None
        np.testing.assert_array_equal(got.voi.lut, TABLE)
        for name in ("window_centers", "window_widths", "function", "lut_first", "lut_bits"):
            assert getattr(got.voi, name) == getattr(image.voi, name)
    os.close(reader)
    os.close(writer)


def test_errors_cross_with_their_class() -> None:
    reader, writer = os.pipe()
    send_error(writer, UnsupportedError("a.dcm: too many frames"))
    with pytest.raises(UnsupportedError, match=r"^a\.dcm: too many frames$"):
        receive_image(reader)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"error": "SystemExit", "message": "x"},
        {"values": [2, 2], "space": "modality", "voi": None},
        {"values": "wrong", "space": "modality", "voi": None},
    ],
)
def test_a_worker_that_was_taken_over_cannot_send_just_anything(header: object) -> None:
    reader, writer = os.pipe()
    text = json.dumps(header).encode()
    os.write(writer, struct.pack("<IQ", len(text), 0) + text)
    with pytest.raises(ValueError, match=r"message|buffer|reshape|unpack"):
        receive_image(reader)
    os.write(writer, struct.pack("<IQ", 1 << 31, 0))
    with pytest.raises(ValueError, match="impossible length"):
        receive(reader)
    os.close(writer)
    with pytest.raises(EOFError):
        receive(reader)
    os.close(reader)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"null",
        b'{"kind": "executable"}',
        b'{"kind": "dicom", "rows": "3"}',
        b'{"kind": "dicom", "frames": [{"pose": {"position_mm": [1, 2]}}]}',
        b"\xff",
    ],
)
def test_a_record_of_another_kind_is_refused(payload: bytes) -> None:
    reader, writer = os.pipe()
    send(writer, {"record": True}, payload)
    with pytest.raises(ValueError, match=r"FileFacts|kind|JSON"):
        receive_record(reader, FileFacts)
    send_record(writer, FileFacts(kind="dicom", rows=3))
    assert receive_record(reader, FileFacts) == FileFacts(kind="dicom", rows=3)
    send_error(writer, UnsupportedError("a.dcm: too many frames"))
    with pytest.raises(UnsupportedError, match="too many"):
        receive_record(reader, FileFacts)
    os.close(reader)
    os.close(writer)


def test_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        send(writer, {})
    os.close(writer)
