"""A 4B checkpoint at full size, as `bench/full_size.py` measures it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "full_size.py"


@pytest.mark.slow
def test_a_random_4b_loads_once_and_answers_as_transformers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCH, tmp_path], stdout=subprocess.PIPE, text=True, check=True
    )
    figures = json.loads(done.stdout)
    assert figures["shards"] > 1
    assert figures["file_bytes"] > 8_500_000_000
    assert len(set(figures["transformers"]["tokens"])) > 8
    assert figures["osler"]["tokens"] == figures["transformers"]["tokens"]
    assert figures["osler"]["peak_bytes"] <= 1.15 * figures["file_bytes"]
