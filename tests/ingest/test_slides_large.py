"""A slide that is larger than memory may be, without a pyramid: read by its parts."""

import re
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from osler.ingest.scan import scan
from osler.ingest.slide.patches import PatchRef
from osler.ingest.worker_pool import decoding_workers
from osler.preprocess.slices import read_shown, shown_of
from osler.preprocess.slides import SlideView, lay_out
from osler.testing.slides import GLASS, tissue

SIDE_PX, TILE_PX = 40_000, 512  # the last tiles are cut
MIB = 1 << 20


def tiles() -> Iterator[np.ndarray]:
    """Tissue in the upper left quarter, glass in the rest."""
    stained = tissue(3 * TILE_PX, 3 * TILE_PX)[TILE_PX : 2 * TILE_PX, TILE_PX : 2 * TILE_PX]
    glass = np.full_like(stained, GLASS)
    count = -(-SIDE_PX // TILE_PX)
    for row in range(count):
        for column in range(count):
            yield stained if max(row, column) < count // 2 else glass


@pytest.mark.slow
def test_forty_thousand_pixels_square(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    tifffile.imwrite(
        path,
        tiles(),
        shape=(SIDE_PX, SIDE_PX, 3),
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb",
        compression="jpeg",
        resolution=(40_000, 40_000),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    decoding_workers.close()  # those to come have done nothing else
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (study,) = lay_out(scan(path).studies, SlideView(magnification=10))
    series = study.series[0]
    side = -(-SIDE_PX // 3584)
    assert series.map is not None
    assert series.map.picture.shape[0] == side * series.map.cell_px
    patches = [frame for frame in series.frames if isinstance(frame, PatchRef)]
    assert {max(patch.cell) for patch in patches} == set(range(6))
    images = read_shown(shown_of(series, 4))
    assert [image.size_px for image in images] == [(896, 896)] * 4
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 100 * 1024  # kilobytes
    for worker in decoding_workers._all:
        status = Path(f"/proc/{worker._process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+([0-9]+) kB", status)
        assert peak is not None
        assert int(peak[1]) * 1024 < 600 * MIB
