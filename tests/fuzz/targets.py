"""Every format that is read, and what is done with a file of it: as the product does it."""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from zlib import crc32

from osler.archive.child import is_whole, read_attributes, read_instance
from osler.errors import OslerError
from osler.ingest import decode_worker, scan, worker_pool
from osler.ingest.facts import FileFacts
from osler.ingest.fhir import read as records
from osler.ingest.wire import receive_image, receive_record
from tests.fuzz import mutate, seeds
from tests.fuzz.mutate import Damage

T = TypeVar("T")
Wrapped = Callable[[bytes, Random, Damage], bytes]

# Shorter parts could stand in any message.
_PART_OF_A_NAME = 5
_LONGEST_MESSAGE = 400


class InProcess:
    """Stands in for a pool of workers: does in this process what a worker would do in its own."""

    def __init__(self, work: decode_worker.Work) -> None:
        self._work = work

    def ask(
        self,
        header: Mapping[str, Any],
        data: bytes,
        receive: Callable[[int], T],
        *,
        replies: int = 1,
    ) -> list[T]:
        """As `WorkerPool.ask`."""
        pipe = os.memfd_create("replies")
        try:
            decode_worker.answer(pipe, dict(header), data, self._work)
            os.lseek(pipe, 0, os.SEEK_SET)
            return [receive(pipe) for _ in range(replies)]
        finally:
            os.close(pipe)


@dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
        seeds: makes the files that mutations start from.
        use: reads a file that is called "x".
        within: damages files of the format below their surface.
        share: of all mutations, in thousandths.
    """

    seeds: Callable[[], list[bytes]]
    use: Callable[[bytes], object]
    within: Wrapped | None = None
    share: int = 50

    def mutated(self, data: bytes, draw: Random, harm: Damage | None = None) -> bytes:
        """A damaged file; `harm` is what is done to bytes."""
        harm = harm or (lambda whole: mutate.damage(whole, draw))
        return harm(data) if self.within is None else self.within(data, draw, harm)


def read(target: Target, data: bytes) -> str:
    """Read a file, and hold the reader to what it promises.

    Returns:
        The message, or "" where the file could be read.
    """
    try:
        target.use(data)
    except OslerError as error:
        message = str(error)
    else:
        return ""
    file, _, reason = message.partition(": ")
    # Of a zip's member it is the member that is named.
    is_named = file == "x" or file.endswith("/x") or target.within is mutate.in_zip
    assert is_named, f"does not name the file: {message!r}"
    assert file, f"does not name the file: {message!r}"
    assert reason, f"gives no reason: {message!r}"
    assert message.isprintable(), f"not one line: {message!r}"
    assert len(message) < _LONGEST_MESSAGE, f"quotes at length: {message!r}"
    assert not _quotes_a_name(message), f"holds a name: {message!r}"
    return message


def _quotes_a_name(message: str) -> bool:
    said = message.lower()
    return any(
        name[at : at + _PART_OF_A_NAME] in said
        for name in (seeds.NAME.lower(), seeds.GIVEN.lower())
        for at in range(len(name) - _PART_OF_A_NAME + 1)
    )


def _image(data: bytes) -> None:
    """One of the things that are asked about a file with images; which one the file decides."""
    pool, named = (
        worker_pool.decoding_workers,
        {"source": "x", "inflated_bytes": None, "whole": True},
    )
    match crc32(data) % 4:
        case 0:
            facts = partial(receive_record, kind=FileFacts)
            (found,) = pool.ask({**named, "task": "describe"}, data, facts)
            if found.frames:
                last = [len(found.frames) - 1]
                pool.ask({**named, "task": "frames", "frames": last}, data, receive_image)
        case 1:
            facts = partial(receive_record, kind=FileFacts | None)
            pool.ask({**named, "task": "describe", "whole": False}, data[:5000], facts)
        case 2:
            pool.ask({**named, "task": "decode"}, data, receive_image)
        case 3:
            numbers = partial(receive_record, kind=tuple[float, float])
            pool.ask({**named, "task": "ranges", "frames": [0]}, data, numbers)


def _path(use: Callable[[Path], object], data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "x")
        path.write_bytes(data)
        use(path)


def _scanned(path: Path) -> None:
    for study in scan.scan(path).studies:
        for series in study.series:
            scan.read_frames(series.frames[:1])


def _slide(path: Path) -> None:
    pool, named = worker_pool.decoding_workers, {"source": "x", "path": str(path)}
    facts = partial(receive_record, kind=FileFacts | None)
    (found,) = pool.ask({**named, "task": "slide"}, b"", facts)
    if found is not None and found.slide is not None:
        wanted = {"reader": found.slide.reader, "files": [[str(path)]], "side_px": 32}
        wanted["boxes"] = [[0, 0, side, side] for side in (256, 2048)]
        pool.ask({**named, **wanted, "task": "patches"}, b"", receive_image, replies=2)


def _instance(path: Path) -> None:
    is_whole(path)
    read_instance(path)
    read_attributes(path)


def _gguf(path: Path) -> None:
    from osler.native.gguf import GgufFile

    GgufFile(path)


def _safetensors(path: Path) -> None:
    from osler.models.safetensors_file import open_file

    open_file(path)


def _record(data: bytes) -> None:
    records.read_record_bytes(data, "x")


TARGETS = {
    "dicom": Target(partial(seeds.dicom, "native"), _image, share=130),
    "dicom-deflated": Target(
        partial(seeds.dicom, "deflated"), _image, mutate.in_deflated_dicom, share=50
    ),
    "dicom-rle": Target(partial(seeds.dicom, "rle"), _image),
    "dicom-jpeg": Target(partial(seeds.dicom, "jpeg"), _image, share=90),
    "dicom-jpeg-ls": Target(partial(seeds.dicom, "jpeg-ls"), _image),
    "dicom-jpeg-2000": Target(partial(seeds.dicom, "jpeg-2000"), _image, share=90),
    "dicom-htj2k": Target(partial(seeds.dicom, "htj2k"), _image),
    "dicomdir": Target(seeds.dicomdir, _image, share=30),
    "instance": Target(
        lambda: seeds.dicom("native") + seeds.dicom("deflated"), partial(_path, _instance), share=30
    ),
    "nifti": Target(seeds.nifti, _image, share=40),
    "nifti-gz": Target(lambda: seeds.gzipped(seeds.nifti()), _image, mutate.in_gzip, share=40),
    "png": Target(partial(seeds.picture, "PNG"), _image, mutate.in_png),
    "jpeg": Target(partial(seeds.picture, "JPEG"), _image),
    "webp": Target(partial(seeds.picture, "WEBP"), _image, share=30),
    "tiff": Target(partial(seeds.picture, "TIFF"), _image),
    "zip": Target(seeds.zips, partial(_path, _scanned), mutate.in_zip, share=15),
    "slide": Target(seeds.whole_slides, partial(_path, _slide), share=30),
    "fhir": Target(seeds.fhir, _record, mutate.in_json, share=65),
    "fhir-zip": Target(seeds.fhir_zips, _record, mutate.in_zip, share=10),
    "ndjson-gz": Target(lambda: seeds.gzipped(seeds.bulk()), _record, mutate.in_gzip, share=20),
    "ccda": Target(seeds.ccda, _record, mutate.in_xml, share=10),
    "gguf": Target(seeds.ggufs, partial(_path, _gguf), share=10),
    "safetensors": Target(seeds.safetensors, partial(_path, _safetensors), share=10),
}
