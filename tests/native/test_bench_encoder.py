"""The bench of the encoder runs; what it measures means nothing at this size."""

import json
import subprocess
import sys
from pathlib import Path

from osler.native.library import Library

# Stands for peers.py: it prints something, then its result.
PEER = """
import json, sys
assert sys.argv[1] == "openvino-siglip"
print("loading")
print(json.dumps({"engine": "openvino", "dtype": sys.argv[sys.argv.index("--dtype") + 1]}))
"""


def test_it_prints_what_it_should(native: Library, tmp_path: Path) -> None:
    peer = tmp_path / "peers.py"
    peer.write_text(PEER)
    command = [sys.executable, "-m", "bench.encoder", "--tables", native.kernels, "none"]
    command += ["--sizes", "28", "--layers", "1", "--repeat", "1", "--threads", "2"]
    command += ["--seconds", "0.001", "--peer", str(peer)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = json.loads(done.stdout)
    # Of a table that is not there, it says nothing; the peer comes before and after.
    for format, (before, ours, after) in zip(("int8", "bf16"), (rows[:3], rows[3:]), strict=True):
        assert before == after == {"engine": "openvino", "dtype": format}
        assert (ours["kernels"], ours["format"]) == (native.kernels, format)
        assert (ours["size"], ours["threads"]) == (28, 2)
        assert ours["seconds"] > 0
        assert ours["gops"] > 0
        assert min(ours["working_mb"], ours["rss_mb"]) > 0
