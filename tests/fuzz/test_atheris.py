"""200,000 mutations that Atheris draws by what they reach, in processes limited as workers are.

Deterministic but for libFuzzer's own account of time. What a process ends over is kept by libFuzzer
and read again through the worker pool: a codec that crashes may cost the file a line of reason, and
nothing else; what nobody foresaw, or more than five seconds or a gibibyte, is a failure.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from osler.archive import child as archive
from osler.ingest.fhir import read as records
from osler.ingest.worker_pool import decoding_workers
from tests.fuzz.journal import read_journal
from tests.fuzz.targets import TARGETS, read

pytest.importorskip("atheris", reason="there is no Atheris for this machine")

MUTATIONS = 200_000
MOST_CRASHES = 100  # of one format
LONGEST_S = 5.0
_ROOT = Path(__file__).resolve().parents[2]


def _run(name: str, runs: int, seed: int, folder: Path) -> tuple[int, str]:
    """How many mutations were gone through, and what was said if the process did not end well."""
    journal, kept = folder / f"{seed}.journal", len(list(folder.glob("kept/*")))
    command = [sys.executable, "-m", "tests.fuzz", name, f"--runs={runs}", f"--seed={seed}"]
    done = subprocess.run(
        [*command, f"--artifacts={folder / 'kept'}", f"--journal={journal}"],
        cwd=_ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if not journal.exists():
        return 0, done.stderr.decode(errors="replace")
    begun, last = read_journal(journal)
    if done.returncode and len(list(folder.glob("kept/*"))) == kept:
        (folder / "kept" / f"last-{seed}").write_bytes(last)
    return begun, done.stderr.decode(errors="replace") if done.returncode else ""


def _fuzzed(name: str, folder: Path) -> tuple[int, str]:
    """Go through the format's share; the number of mutations, and why they could not go on."""
    (folder / "kept").mkdir(parents=True)
    total, runs = 0, MUTATIONS * TARGETS[name].share // 1000
    for seed in range(1, MOST_CRASHES):
        begun, said = _run(name, runs - total, seed, folder)
        total += begun
        if total >= runs:
            return total, ""
        if not begun or not said:
            return total, f"{name}: ended too early: {said[-2000:]}"
    return total, f"{name}: {MOST_CRASHES} crashes"


@pytest.mark.slow
def test_two_hundred_thousand_mutations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(target.share for target in TARGETS.values()) == 1000
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = list(threads.map(lambda name: _fuzzed(name, tmp_path / name), TARGETS))
    complaints = [complaint for _, complaint in results if complaint]
    kept_files = sorted(tmp_path.glob("*/kept/*"))
    for name in {kept.parent.parent.name for kept in kept_files}:
        read(TARGETS[name], TARGETS[name].seeds()[0])  # libraries are imported in their own time
    for pool in (decoding_workers, records._workers, archive._workers):
        monkeypatch.setattr(pool, "_timeout_s", LONGEST_S)
    for kept in kept_files:
        message = read(TARGETS[kept.parent.parent.name], kept.read_bytes())
        if "longer than" in message or "exit code" in message:
            complaints.append(f"{kept}: {message}")
    assert complaints == []
    assert sum(executed for executed, _ in results) >= MUTATIONS
