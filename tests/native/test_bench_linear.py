"""The bench of the linear layers runs; what it measures means nothing at this size."""

import json
import subprocess
import sys

from tests.native.kernel_tables import table


def test_it_prints_what_it_should():
    # Of a table that is not there, it says nothing.
    name = next(name for name in ("amx", "avx512", "avx2", "portable") if table(name))
    command = [sys.executable, "-m", "bench.linear", "--tables", name, "none", "--shapes", "o"]
    command += ["vision_fc2", "--formats", "int4", "bf16", "--tokens", "1", "9", "--threads", "2"]
    command += ["--seconds", "0.001", "--megabytes", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = json.loads(done.stdout)
    found = [(row["kernels"], row["format"], row["shape"], row["tokens"]) for row in rows]
    layers = [("int4", "o"), ("bf16", "o"), ("bf16", "vision_fc2")]
    assert found == [(name, *layer, tokens) for layer in layers for tokens in (1, 9)]
    assert all(row["gbs"] > 0 and row["read_gbs"] > 0 and row["gops"] > 0 for row in rows)
