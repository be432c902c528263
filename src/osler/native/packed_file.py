"""The file of packed weights, `model.osler`: written in one pass, mapped into memory when read.

    0    magic, 8 bytes                       16   where the header begins, uint64
    8    version, uint32                      24   bytes of the header, uint64
    12   nothing, uint32                      32   SHA-256 of the first 32 bytes and the header
    64   the tensors, each on a 64-byte boundary, zeros between them
    ...  the header: JSON that says what the model is and where each tensor lies

All numbers are little-endian. The header stands last, so that a writer need not know sizes in
advance. A matrix has its packed data (csrc/linear.h) and, in a tensor of its own named
`<name>.row_scale`, its scales; whatever is no matrix is a plain float32 tensor.

What a start costs. Opening checks the lengths, the header's hash and every tensor's place, which
takes milliseconds. The tensors' checksums are compared when a model is loaded, every time: they are
sums of the kind that ZFS calls Fletcher (see `checksum.py`), run at the speed of memory, and the
pages they touch are the ones that the first token needs. 2.5 GB in the page cache take about a
tenth of a second on two cores, so no record of "verified before" is kept that could be wrong.

What `matrix` and `values` return is the file itself: pages load when used and belong to all
processes that map the file. It must not be cut short while in use; writing replaces it by renaming.
"""

import hashlib
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from osler.errors import CheckpointError, CorruptFileError
from osler.native.checksum import Checksum
from osler.native.formats import PLAIN, Matrix, has_row_scale, packed_bytes, padded_rows

PACKED_FILE = "model.osler"
VERSION = 1

_MAGIC = b"\x89OSLER\r\n"  # no text; damaged by whatever translates line ends
_START = struct.Struct("<8sIIQQ")
_START_BYTES = 64
_ALIGN = 64
_MAX_HEADER_BYTES = 64 * 2**20
_MAX_SIDE = 2**31 - 1
_ROW_SCALE = ".row_scale"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor as the header describes it.

    Attributes:
        name: as in `models`, or that of several fused ones.
        format: one of `formats.FORMATS`.
        rows: outputs of a matrix.
        cols: inputs of a matrix; 1 where a plain tensor is a vector.
        group: columns that share an activation scale, as in csrc/linear.h.
        offset: from the beginning of the file.
        bytes: of the data.
        checksum: of the data, hexadecimal.
    """

    name: str
    format: str
    rows: int
    cols: int
    group: int
    offset: int
    bytes: int
    checksum: str


class PackedFile:
    """An open file of packed weights.

    Attributes:
        path: where it lies.
        about: what the model is, as its writer said.
        entries: name to place.
    """

    def __init__(self, path: Path) -> None:
        """Open and check all but the checksums of the data.

        Raises:
            CorruptFileError: no such file, or one that is foreign, truncated or damaged.
            CheckpointError: a file of a newer version.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                header = _read_header(path, file, size_bytes)
                self._bytes = mmap.mmap(file.fileno(), size_bytes, access=mmap.ACCESS_READ)
        except OSError as error:
            reason = error.strerror or "cannot be read"
            raise CorruptFileError(f"{path}: {reason}") from error
        self.about, self.entries = _parse_header(path, *header)

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return len(self._bytes)

    def matrix(self, name: str) -> Matrix:
        """A packed matrix, mapped from the file.

        Raises:
            CheckpointError: the file has no such matrix.
        """
        entry = self._entry(name)
        if entry.format == PLAIN:
            raise CheckpointError(f"{self.path}: {name} is not a packed matrix")
        row_scale = self.values(name + _ROW_SCALE) if has_row_scale(entry.format) else None
        return Matrix(
            format=entry.format,
            rows=entry.rows,
            cols=entry.cols,
            group=entry.group,
            data=self._data(entry),
            row_scale=row_scale,
        )

    def values(self, name: str) -> NDArray[np.float32]:
        """A plain tensor, (rows, cols), or (rows,) where it has one column.

        Raises:
            CheckpointError: the file has no such tensor.
        """
        entry = self._entry(name)
        if entry.format != PLAIN:
            raise CheckpointError(f"{self.path}: {name} is a packed matrix")
        values = self._data(entry).view("<f4").reshape(entry.rows, entry.cols)
        return values[:, 0] if entry.cols == 1 else values

    def verify(self, progress: Callable[[int], object] | None = None) -> None:
        """Compare every tensor's checksum.

        Args:
            progress: called with the number of bytes compared so far.

        Raises:
            CorruptFileError: a tensor is damaged.
        """
        done = 0
        # Threads, because one core alone does not read memory at its speed.
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for entry, found in pool.map(self._checked, self.entries.values()):
                if found != entry.checksum:
                    pool.shutdown(cancel_futures=True)
                    raise CorruptFileError(f"{self.path}: {entry.name} is damaged (checksum)")
                done += entry.bytes
                if progress is not None:
                    progress(done)

    def _checked(self, entry: Entry) -> tuple[Entry, str]:
        return entry, Checksum().update(self._data(entry)).hexdigest()

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise CheckpointError(f"{self.path}: holds no {name}")
        return self.entries[name]

    def _data(self, entry: Entry) -> NDArray[np.uint8]:
        return np.frombuffer(self._bytes, np.uint8, entry.bytes, entry.offset)


class PackedWriter:
    """Writes a file of packed weights, one tensor after the other; made by `write_packed`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._entries: list[Entry] = []
        file.write(bytes(_START_BYTES))

    def matrix(
        self, name: str, format: str, rows: int, cols: int, group: int, parts: Iterable[Matrix]
    ) -> None:
        """Add a packed matrix.

        Args:
            name: unique in the file.
            format: of the matrix.
            rows: of the whole matrix.
            cols: of the whole matrix.
            group: as in csrc/linear.h.
            parts: the matrix in slices of whole row blocks, in order, so that it need never be in
                memory as a whole.
        """
        scales: list[NDArray[np.float32]] = []

        def data() -> Iterator[NDArray[np.uint8]]:
            for part in parts:
                if part.row_scale is not None:
                    scales.append(part.row_scale)
                yield part.data

        self._add(name, format, rows, cols, group, data())
        if has_row_scale(format):
            self.values(name + _ROW_SCALE, np.concatenate(scales))

    def values(self, name: str, values: NDArray[np.float32]) -> None:
        """Add a plain tensor of one or two dimensions."""
        table = np.ascontiguousarray(values, "<f4").reshape(len(values), -1)
        self._add(name, PLAIN, *table.shape, 0, [table.reshape(-1).view(np.uint8)])

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the header; nothing can be added after it."""
        content = {"about": dict(about), "tensors": [asdict(entry) for entry in self._entries]}
        header = json.dumps(content).encode()
        start = _START.pack(_MAGIC, VERSION, 0, self._align(), len(header))
        self._file.write(header)
        self._file.seek(0)
        self._file.write(start + hashlib.sha256(start + header).digest())

    def _add(
        self,
        name: str,
        format: str,
        rows: int,
        cols: int,
        group: int,
        parts: Iterable[NDArray[np.uint8]],
    ) -> None:
        offset = self._align()
        checksum = Checksum()
        size_bytes = 0
        for part in parts:
            self._file.write(part.data)
            checksum.update(part)
            size_bytes += part.nbytes
        if size_bytes != (expected := packed_bytes(format, rows, cols)):
            raise ValueError(f"{name}: {size_bytes} bytes of data for a matrix of {expected}")
        self._entries.append(
            Entry(
                name=name,
                format=format,
                rows=rows,
                cols=cols,
                group=group,
                offset=offset,
                bytes=size_bytes,
                checksum=checksum.hexdigest(),
            )
        )

    def _align(self) -> int:
        offset = self._file.tell()
        self._file.write(bytes(-offset % _ALIGN))
        return offset + -offset % _ALIGN


@contextmanager
def write_packed(path: Path, about: Mapping[str, Any]) -> Iterator[PackedWriter]:
    """Write a file of packed weights beside its place, and rename it when it is whole.

    Args:
        path: its place; a file that is there stays until the new one is complete.
        about: what the model is; anything that JSON holds. Read at the end.

    Yields:
        A writer for the tensors.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".packing-")
        part = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                writer = PackedWriter(file)
                yield writer
                writer.finish(about)
                file.flush()
                os.fsync(file.fileno())
            # As other files are made here; mkstemp's are for their owner alone.
            part.chmod(0o666 & ~_umask())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _read_header(path: Path, file: IO[bytes], size_bytes: int) -> tuple[bytes, int]:
    """The header as bytes, and where it begins; lengths are checked before anything is read."""
    start = file.read(_START_BYTES)
    if not start:
        raise CorruptFileError(f"{path}: empty")
    if start.startswith(b"version https:/"):
        raise CorruptFileError(f"{path}: a Git LFS pointer; the weights were not downloaded")
    if not start.startswith(_MAGIC[: len(start)]):
        raise CorruptFileError(f"{path}: not a file of packed weights")
    if len(start) < _START_BYTES:
        raise CorruptFileError(f"{path}: truncated")
    _, version, _, offset, header_bytes = _START.unpack_from(start)
    if version != VERSION:
        raise CheckpointError(
            f"{path}: version {version} of the format; this Osler reads version {VERSION}"
        )
    if offset + header_bytes > size_bytes:
        raise CorruptFileError(f"{path}: truncated at {size_bytes:,} bytes")
    if offset + header_bytes < size_bytes:
        raise CorruptFileError(f"{path}: something follows its end")
    if offset < _START_BYTES or header_bytes > _MAX_HEADER_BYTES:
        raise CorruptFileError(f"{path}: damaged (place of the header)")
    file.seek(offset)
    header = file.read(header_bytes)
    if hashlib.sha256(start[: _START.size] + header).digest() != start[_START.size :]:
        raise CorruptFileError(f"{path}: damaged (checksum of the header)")
    return header, offset


def _parse_header(path: Path, header: bytes, end: int) -> tuple[dict[str, Any], dict[str, Entry]]:
    """What the model is, and the tensors, all checked; the hash only keeps accidents out."""
    try:
        content = json.loads(header)
        about, tensors = content["about"], content["tensors"]
        entries = [Entry(**tensor) for tensor in tensors]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CorruptFileError(f"{path}: the header is not one of packed weights") from None
    if not isinstance(about, dict):
        raise CorruptFileError(f"{path}: the header does not say what the model is")
    for entry in entries:
        if fault := _fault(entry, end):
            raise CorruptFileError(f"{path}: {str(entry.name)[:100]!r} {fault}")
    found = {entry.name: entry for entry in entries}
    if len(found) < len(entries):
        raise CorruptFileError(f"{path}: two tensors have the same name")
    reached = _START_BYTES
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if entry.offset < reached:
            raise CorruptFileError(f"{path}: {entry.name} overlaps what stands before it")
        reached = entry.offset + entry.bytes
    for entry in entries:
        if has_row_scale(entry.format):
            scale = found.get(entry.name + _ROW_SCALE)
            if scale is None or (scale.rows, scale.cols) != (padded_rows(entry.rows), 1):
                raise CorruptFileError(f"{path}: {entry.name} lacks the scales of its rows")
    return about, found


def _fault(entry: Entry, end: int) -> str | None:
    """What is wrong with an entry, itself alone."""
    for field in fields(entry):
        # JSON's true is an int to Python, and no size.
        if type(getattr(entry, field.name)) is not field.type:
            return f"has a {field.name} that is no {getattr(field.type, '__name__', '')}"
    if not (0 < entry.rows <= _MAX_SIDE and 0 < entry.cols <= _MAX_SIDE and entry.group >= 0):
        return "has a size out of range"
    try:
        expected = packed_bytes(entry.format, entry.rows, entry.cols)
    except ValueError:
        return f"has the format {entry.format[:20]!r}, which this Osler does not know"
    if entry.bytes != expected:
        return f"has {entry.bytes} bytes, not {expected}"
    if entry.offset % _ALIGN or entry.offset < _START_BYTES or entry.offset + entry.bytes > end:
        return "lies outside the file's data"
    return None
