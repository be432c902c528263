"""Pictures that differ by their brightness, and the tables that tell them apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

Table = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Writes a folder of dark and bright pictures with their labels."""

    def write(count: int = 8, name: str = "data") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        random = np.random.default_rng(0)
        lines = ["image,label"]
        for index in range(count):
            label, level = (("dark", 40), ("bright", 210))[index % 2]
            pixels = random.integers(level - 30, level + 30, (56, 56, 3), dtype=np.uint8)
            Picture.fromarray(pixels).save(folder / f"{index}.png")
            lines.append(f"{index}.png,{label}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        return folder

    return write
