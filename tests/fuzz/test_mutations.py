"""Some hundred damaged files of every format, through the child processes as they are in use."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from osler.archive import child as archive
from osler.ingest.fhir import read as records
from osler.ingest.limits import MIN_WORKER_BYTES
from osler.ingest.worker_pool import WorkerPool, decoding_workers
from tests.fuzz.targets import TARGETS, read

MUTATIONS = 25
LONGEST_S = 5.0
_POOLS = (decoding_workers, records._workers, archive._workers)


def peak_bytes(pool: WorkerPool) -> int:
    """The most memory that any of the workers has had."""
    peaks = []
    for worker in pool._all:
        status = Path(f"/proc/{worker._process.pid}/status").read_text()
        peaks.append(int(status.split("VmHWM:")[1].split()[0]) << 10)
    return max(peaks, default=0)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, draw = TARGETS[name], Random(name)
    seeds = target.seeds()
    read(target, seeds[0])  # libraries are imported in their own time
    for pool in _POOLS:
        monkeypatch.setattr(pool, "_timeout_s", LONGEST_S)
    outcomes: Counter[str] = Counter()
    for _ in range(MUTATIONS):
        data = target.mutated(draw.choice(seeds), draw)
        outcomes[read(target, data)] += 1
    for pool in _POOLS:
        assert peak_bytes(pool) < MIN_WORKER_BYTES
    assert not [message for message in outcomes if "longer than" in message]
    # What nobody foresaw; a codec that crashes is what the child is there for.
    assert not [message for message in outcomes if "exit code" in message]
    # Not each is refused at the door: damage went further in.
    assert len(outcomes) > 1
