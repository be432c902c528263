"""A small MIRAX slide of known pixels: a folder of data, and the file that stands for it."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as PilImage

from osler.testing.slides import Pixels

_TILE_PX = 256
_SLIDE_ID = "PLANTED-SLIDE"


def write_mrxs(path: Path, levels: Sequence[Pixels], *, mpp: float = 0.5) -> Path:
    """Write the levels as PNG tiles; `path` itself becomes a picture of the glass, all black.

    Args:
        path: ends in ".mrxs".
        levels: each half of the one before; sides that are multiples of the tiles.
        mpp: of the first.
    """
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    across, down = levels[0].shape[1] // _TILE_PX, levels[0].shape[0] // _TILE_PX
    data = io.BytesIO()
    pages = []
    for number, level in enumerate(levels):
        entries = []
        for top in range(0, level.shape[0], _TILE_PX):
            for left in range(0, level.shape[1], _TILE_PX):
                tile = io.BytesIO()
                PilImage.fromarray(level[top : top + _TILE_PX, left : left + _TILE_PX]).save(
                    tile, "PNG"
                )
                column, row = (side // _TILE_PX << number for side in (left, top))
                entries.append((row * across + column, data.tell(), tile.tell(), 0))
                data.write(tile.getvalue())
        pages.append(entries)
    (folder / "Data0000.dat").write_bytes(data.getvalue())
    (folder / "Index.dat").write_bytes(_index(pages))
    (folder / "Slidedat.ini").write_text(_told(across, down, len(levels), mpp))
    PilImage.new("RGB", (60, 120)).save(path, "JPEG")
    return path


def _index(pages: Sequence[Sequence[tuple[int, int, int, int]]]) -> bytes:
    start = b"01.02" + _SLIDE_ID.encode()
    table = len(start) + 8
    record = table + 4 * len(pages)
    pointers, records, rest = [], b"", b""
    after = record + 8 * len(pages)
    for number, entries in enumerate(pages):
        pointers.append(record + 8 * number)
        records += struct.pack("<ii", 0, after + len(rest))
        rest += struct.pack("<ii", len(entries), 0)
        rest += b"".join(struct.pack("<iiii", *entry) for entry in entries)
    heads = struct.pack("<ii", table, 0)
    return start + heads + struct.pack(f"<{len(pages)}i", *pointers) + records + rest


def _told(across: int, down: int, levels: int, mpp: float) -> str:
    sections = {
        "GENERAL": {
            "SLIDE_VERSION": "01.02",
            "SLIDE_ID": _SLIDE_ID,
            "SLIDE_NAME": "PLANTED-NAME",
            "IMAGENUMBER_X": across,
            "IMAGENUMBER_Y": down,
            "OBJECTIVE_MAGNIFICATION": 20,
        },
        "HIERARCHICAL": {
            "HIER_COUNT": 1,
            "NONHIER_COUNT": 0,
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": levels,
        }
        | {f"HIER_0_VAL_{number}_SECTION": f"LEVEL_{number}" for number in range(levels)},
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
    }
    for number in range(levels):
        sections[f"LEVEL_{number}"] = {
            "OVERLAP_X": 0,
            "OVERLAP_Y": 0,
            "MICROMETER_PER_PIXEL_X": mpp * 2**number,
            "MICROMETER_PER_PIXEL_Y": mpp * 2**number,
            "IMAGE_FILL_COLOR_BGR": 0xFFFFFF,
            "DIGITIZER_WIDTH": _TILE_PX,
            "DIGITIZER_HEIGHT": _TILE_PX,
            "IMAGE_FORMAT": "PNG",
            "IMAGE_CONCAT_FACTOR": int(number > 0),
        }
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for name, keys in sections.items()
    )
