"""Files with damage done to them, the same for the same random numbers.

Bytes are damaged where they stand, and also below what would otherwise keep damage from getting any
further: compression, checksums, the syntax of JSON.
"""

import gzip
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any

from pydicom.uid import DeflatedExplicitVRLittleEndian

Damage = Callable[[bytes], bytes]

# At the edges of what fits into a field, and much more than any file holds.
_NUMBERS = (0, 1, 2, 3, 8, 16, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)
_HEADER_BYTES = 2500
_XML_PARTS = re.compile(rb'((?<=")[^"<>]+(?=")|<[^<>?]+/>)')
_TOKENS = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",  # an item without a length
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"SQ\0\0\xff\xff\xff\xff",
    b"\xe0\x7f\x10\0OW\0\0\xff\xff\xff\xff",
    b"\xff\xd8\xff",
    b"\xff\x4f\xff\x51",
    b"OB",
    b"PN",
    b"UN",
    b'{"a":',
    b"<!ENTITY x 'y'>",
    b"1e400",
)


def damage(data: bytes, draw: Random) -> bytes:
    """Do one to six things to bytes, more of them to the beginning than elsewhere."""
    damaged = bytearray(data or b"\0")
    for _ in range(draw.randint(1, 6)):
        size = len(damaged)
        at = draw.randrange(min(size, _HEADER_BYTES) if draw.random() < 0.6 else size)
        match draw.randrange(8):
            case 0 | 1:
                damaged[at] ^= 1 << draw.randrange(8)
            case 2:
                damaged[at] = draw.randrange(256)
            case 3 | 4:
                number = draw.choice(_NUMBERS)
                kind = draw.choice(("<I", ">I", "<H", ">H"))
                packed = struct.pack(kind, number & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF))
                damaged[at : at + len(packed)] = packed
            case 5:
                damaged[at:at] = draw.choice(_TOKENS)
            case 6:
                until = min(size, at + draw.choice((1, 2, 4, 64, 1000)))
                if draw.random() < 0.5:
                    del damaged[at:until]
                else:
                    damaged[at:at] = damaged[at:until]
            case 7 if draw.random() < 0.3:
                del damaged[at + 1 :]
        damaged = damaged or bytearray(b"\0")
    return bytes(damaged)


def in_gzip(data: bytes, draw: Random, harm: Damage) -> bytes:
    """Damage to what is compressed, or to the compressed."""
    if draw.random() < 0.3:
        return harm(data)
    try:
        return gzip.compress(harm(gzip.decompress(data)), 1, mtime=0)
    except (OSError, EOFError, zlib.error):
        return harm(data)


def in_zip(data: bytes, draw: Random, harm: Damage) -> bytes:
    """Damage to a member, or to the zip."""
    if draw.random() < 0.6:
        return harm(data)
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()[:8]}
        name = draw.choice(sorted(members))
        members[name] = harm(members[name])
        packed = BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return packed.getvalue()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, zlib.error, struct.error,
            KeyError, IndexError, NotImplementedError, RuntimeError):  # fmt: skip
        return harm(data)


def in_deflated_dicom(data: bytes, draw: Random, harm: Damage) -> bytes:
    """Damage to the deflated data set, or to the whole."""
    start = data.find(DeflatedExplicitVRLittleEndian.encode()) + 22
    if start < 22 or draw.random() < 0.3:
        return harm(data)
    try:
        plain = zlib.decompressobj(-15).decompress(data[start:], 1 << 22)
    except zlib.error:
        return harm(data)
    deflater = zlib.compressobj(1, wbits=-15)
    return data[:start] + deflater.compress(harm(plain)) + deflater.flush()


def in_png(data: bytes, draw: Random, harm: Damage) -> bytes:
    """Damage with the checksums made to fit, at times in the compressed pixels."""
    damaged = harm(data)
    if draw.random() < 0.3:
        return damaged
    mended, at = bytearray(damaged), 8
    while at + 12 <= len(mended):
        (length,) = struct.unpack_from(">I", mended, at)
        end = at + 8 + length
        if end + 4 > len(mended):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(mended[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def in_json(data: bytes, draw: Random, harm: Damage) -> bytes:
    """Damage to the tree of a document or of a line, or to its bytes."""
    if draw.random() < 0.3:
        return harm(data)
    lines = data.split(b"\n")
    place = draw.randrange(len(lines))
    try:
        tree = json.loads(lines[place])
        places = list(_places(tree))
        for _ in range(draw.randint(1, 4)):
            holder, key = draw.choice(places)
            holder[key] = _value(draw, places)
        lines[place] = json.dumps(tree).encode()
    except (ValueError, IndexError, RecursionError, KeyError, TypeError):
        return harm(data)
    return b"\n".join(lines)


def in_xml(data: bytes, draw: Random, harm: Damage) -> bytes:
    """Damage to attributes and empty elements, which leaves it XML, or to the bytes."""
    if draw.random() < 0.3:
        return harm(data)
    for _ in range(draw.randint(1, 4)):
        spans = [match.span(1) for match in _XML_PARTS.finditer(data)]
        if not spans:
            return harm(data)
        start, end = draw.choice(spans)
        other = data[slice(*draw.choice(spans))]
        as_value = data[start - 1 : start] == b'"'
        if as_value:
            new = draw.choice((b"", b"-1", b"9" * 500, b"2020-99", b"&#x202e;", b"nullFlavor"))
        else:
            new = draw.choice((b"", data[start:end] * 40, other if other[:1] == b"<" else b""))
        data = data[:start] + new + data[end:]
    return data


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting and len(found) < 2000:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found


def _value(draw: Random, places: list[tuple[Any, Any]]) -> Any:
    """Something from elsewhere in the tree, which makes rings of references, or something odd."""
    if draw.random() < 0.5:
        holder, key = draw.choice(places)
        return json.loads(json.dumps(holder[key]))
    return draw.choice(
        [None, True, [], {}, "", "#x", "Patient/p1", -1, 0, 1e308, 10**40, "1e999", "\u202e\ud800",
         "2020-13-45", [[[[]]]], {"reference": {"reference": "#"}}, "9" * 5000, ["a"] * 500]
    )  # fmt: skip
