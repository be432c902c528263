"""The files that rows come from: JSON lines, Parquet, tars in WebDataset's layout, folders."""

import gzip
import io
import json
import os
import re
import tarfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from osler.errors import InputError, UnreadableFileError

Split = Literal["train", "val"]

# Of a file in a series, with its split: web-00012, web-train-00012.
_NUMBER = re.compile(r"(-train|-val)?[-_.]\d+$")
_VALIDATION = re.compile(r"-val([-_.]\d+)?$")
# Files above this are known by their size and their two ends.
_HASHED_WHOLE_BYTES = 2**28
_END_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a shard.

    Attributes:
        where: file and line (or row, or name in a tar), for messages.
        fields: by name; of a tar or folder, by the files' endings: `json` parsed, `txt` and `cls`
            text, others bytes.
    """

    where: str
    fields: dict[str, Any]

    def text(self, *names: str) -> str:
        """The first of these fields that is there.

        Raises:
            UnreadableFileError: none is, or it is not text.
        """
        for name in names:
            if name in self.fields:
                if isinstance(value := self.fields[name], str):
                    return value
                raise UnreadableFileError(f"{self.where}: {name!r} is not text")
        raise UnreadableFileError(f"{self.where}: no field {' or '.join(map(repr, names))}")


class Shard(Protocol):
    """Rows that are read one by one."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Row: ...


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """Where a shard is: a file or folder, or a row group of a Parquet file."""

    path: Path
    row_group: int | None = None

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> Shard:
        """Read its index.

        Raises:
            UnreadableFileError: it is not what its name says.
        """
        if self.row_group is not None:
            return _ParquetRows(self.path, self.row_group)
        return _opener(self.path)(self.path)


def find_shards(path: str | os.PathLike[str], split: Split = "train") -> dict[str, list[ShardFile]]:
    """Find the sources of a folder: every file of rows by itself, or else its pictures.

    Files whose name ends with `-val` (before the format, or before their number) are of the
    validation split, all others are for training. A numbered series (`web-00012.tar`,
    `web-00013.tar`) is one source.

    Args:
        path: a folder, or one file.
        split: whose files.

    Returns:
        Shards by the name of their source, in order.

    Raises:
        UnreadableFileError: nothing is there.
        InputError: a Parquet file, and pyarrow is not installed.
    """
    root = Path(path)
    if not root.exists():
        raise UnreadableFileError(f"{root}: no such file or folder")
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if _opens(p))
    sources: dict[str, list[ShardFile]] = {}
    for file in files:
        stem = _stem(file)
        own_split = "val" if _VALIDATION.search(stem) else "train"
        if own_split == split:
            name = _NUMBER.sub("", stem.removesuffix("-val").removesuffix("-train"))
            sources.setdefault(name, []).extend(_shards_of(file))
    if not files and root.is_dir() and any(p.is_file() for p in root.rglob("*")):
        sources = {root.name: [ShardFile(path=root)]} if split == "train" else {}
    if not sources and split == "train":
        raise UnreadableFileError(f"{root}: no rows to train on (.jsonl, .parquet, .tar, pictures)")
    return sources


def fingerprint(path: Path) -> dict[str, Any]:
    """What a file is, for run.json: its size, and the hash of all of it or of both ends."""
    size = path.stat().st_size
    digest = sha256()
    with path.open("rb") as stream:
        if size <= _HASHED_WHOLE_BYTES:
            while piece := stream.read(_END_BYTES):
                digest.update(piece)
            return {"file": path.name, "bytes": size, "sha256": digest.hexdigest()}
        digest.update(stream.read(_END_BYTES))
        stream.seek(-_END_BYTES, os.SEEK_END)
        digest.update(stream.read())
    return {"file": path.name, "bytes": size, "sha256_of_ends": digest.hexdigest()}


class _JsonLines:
    """Lines of JSON objects; a gzipped file is unpacked into memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts, self._numbers = array("Q"), array("Q")
        start = 0
        try:
            self._unpacked = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UnreadableFileError(f"{path}: not a readable gzip file") from error
        with self._stream() as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    self._starts.append(start)
                    self._numbers.append(number)
                start += len(line)

    def _stream(self) -> IO[bytes]:
        return self._path.open("rb") if self._unpacked is None else io.BytesIO(self._unpacked)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Row:
        with self._stream() as stream:
            stream.seek(self._starts[index])
            line = stream.readline()
        where = f"{self._path}: line {self._numbers[index]}"
        return Row(where=where, fields=_object(line, where))


class _TarSamples:
    """Samples of a tar: files that lie together and differ in their endings."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._samples: list[tuple[str, list[tuple[str, int, int]]]] = []
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.isfile():
                        folder, _, name = member.name.rpartition("/")
                        stem, _, ending = name.partition(".")
                        key = f"{folder}/{stem}" if folder else stem
                        if not self._samples or self._samples[-1][0] != key:
                            self._samples.append((key, []))
                        place = (ending.lower(), member.offset_data, member.size)
                        self._samples[-1][1].append(place)
        except (tarfile.TarError, EOFError) as error:
            raise UnreadableFileError(f"{path}: not a readable tar file ({error})") from error

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Row:
        key, parts = self._samples[index]
        where = f"{self._path}: {key}"
        fields = {}
        with self._path.open("rb") as stream:
            for ending, start, size in parts:
                stream.seek(start)
                fields[ending] = _content(stream.read(size), ending, where)
        return Row(where=where, fields=fields)


class _FolderSamples:
    """Samples of a folder and those below it: files with one stem; `folder` names the last one."""

    def __init__(self, path: Path) -> None:
        samples: dict[str, list[Path]] = {}
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            samples.setdefault(str(file.with_suffix("")), []).append(file)
        self._samples = list(samples.items())

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Row:
        where, files = self._samples[index]
        fields: dict[str, Any] = {"folder": files[0].parent.name}
        for file in files:
            ending = file.suffix[1:].lower()
            fields[ending] = _content(file.read_bytes(), ending, where)
        return Row(where=where, fields=fields)


class _ParquetRows:
    """Rows of one row group, which is read into memory."""

    def __init__(self, path: Path, row_group: int) -> None:
        file = _parquet(path)
        before = sum(file.metadata.row_group(i).num_rows for i in range(row_group))
        self._first_row, self._path = before + 1, path
        self._table = file.read_row_group(row_group)

    def __len__(self) -> int:
        count: int = self._table.num_rows
        return count

    def __getitem__(self, index: int) -> Row:
        [fields] = self._table.slice(index, 1).to_pylist()
        return Row(where=f"{self._path}: row {self._first_row + index}", fields=fields)


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: Parquet needs pyarrow: pip install 'osler[train]'") from error
    try:
        return parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise UnreadableFileError(f"{path}: not a readable Parquet file") from error


_FORMATS: dict[str, Callable[[Path], Shard]] = {
    ".jsonl": _JsonLines,
    ".jsonl.gz": _JsonLines,
    ".tar": _TarSamples,
}
_PARQUET = ".parquet"


def _ending(path: Path) -> str | None:
    return next((e for e in (*_FORMATS, _PARQUET) if path.name.endswith(e)), None)


def _stem(path: Path) -> str:
    return path.name.removesuffix(_ending(path) or path.suffix)


def _opens(path: Path) -> bool:
    return path.is_file() and _ending(path) is not None


def _opener(path: Path) -> Callable[[Path], Shard]:
    if path.is_dir():
        return _FolderSamples
    ending = _ending(path)
    if ending is None:
        raise UnreadableFileError(f"{path}: not a .jsonl, .jsonl.gz, .parquet or .tar file")
    return _FORMATS[ending]


def _shards_of(path: Path) -> Sequence[ShardFile]:
    if path.name.endswith(_PARQUET):
        groups: int = _parquet(path).metadata.num_row_groups
        return [ShardFile(path=path, row_group=i) for i in range(groups)]
    return [ShardFile(path=path)]


def _content(content: bytes, ending: str, where: str) -> Any:
    if ending == "json":
        return _object(content, f"{where}.json")
    if ending in ("txt", "cls"):
        try:
            return content.decode().strip()
        except UnicodeDecodeError as error:
            raise UnreadableFileError(f"{where}.{ending}: not UTF-8 text") from error
    return content


def _object(content: bytes, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(content)
    except ValueError as error:
        raise UnreadableFileError(f"{where} is not JSON") from error
    if not isinstance(fields, dict):
        raise UnreadableFileError(f"{where} is not a JSON object")
    return fields


def all_rows(shards: Sequence[ShardFile]) -> Iterator[Row]:
    """Every row once, in order."""
    for file in shards:
        shard = file.open()
        yield from (shard[index] for index in range(len(shard)))
