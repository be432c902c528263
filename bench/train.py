"""How fast each phase trains, beside what users train with today; one table.

    python -m bench.train --out FOLDER --peers PYTHON --clip PYTHON [--only text ...] [--sizes nano]

Every run is a process of its own, on the same weights and batches. Those of one phase take turns,
`--rounds` times. FOLDER gets the cases, `train.json` with every run (what is there already is kept,
and a phase that is measured again is added to) and `train.md`, the table.

Speeds are by seconds of the processor, as a machine with neighbours gives a process its share of a
clock's; `train.json` has both. The first losses must be equal, and the last ones nearly.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.probe import Probe
from bench.train_cases import SIZES, write_case
from osler.native.library import library

PHASES = ("contrastive", "text", "talk", "distill", "reinforce", "full", "lora", "qlora")
# Of the first step, where only roundings differ; of the last, when they have been learnt from.
FIRST, LAST = 0.005, 0.05
# Answers are drawn at random, and two libraries round 4-bit scales in two ways.
WITHOUT_EQUAL_LOSSES, FIRST_4_BIT = ("reinforce",), 0.05

Run = dict[str, Any]


def contenders(given: argparse.Namespace, phase: str, case: Path) -> dict[str, Sequence[str]]:
    """Commands by name, ourselves first; a peer that was not named is left out."""
    options = (phase, "--case", str(case), "--steps", given.steps, "--warm-up", given.warm_up)
    peer = str(Path(__file__).with_name("peer_train.py"))
    found: dict[str, Sequence[str]] = {
        "osler": (sys.executable, "-m", "bench.train_ours", *options)
    }
    if given.peers:
        name = "TRL" if phase == "reinforce" else "Trainer"
        found[name] = (given.peers, peer, name.lower(), *options)
        if given.compile and name == "Trainer":
            found["Trainer, compiled"] = (*found[name], "--compile")
    if given.clip and phase == "contrastive":
        found["open_clip"] = (given.clip, peer, "open_clip", *options)
    return found


def measure(command: Sequence[str], threads: int) -> Run:
    """Run a contender.

    Raises:
        SystemExit: it failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        tail = done.stderr.strip().splitlines()[-8:]
        raise SystemExit("\n".join([f"failed: {' '.join(command)}", *tail]))
    result: Run = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def check_losses(phase: str, ours: Run, peer: Run, name: str) -> None:
    """Both must have computed the same.

    Raises:
        SystemExit: they did not.
    """
    if phase in WITHOUT_EQUAL_LOSSES:
        return
    first = FIRST_4_BIT if phase == "qlora" else FIRST
    for place, most in ((0, first), (-1, LAST)):
        wanted, found = ours["losses"][place], peer["losses"][place]
        if abs(found - wanted) > most * abs(wanted):
            raise SystemExit(f"{phase}, {name}: losses {found} and {wanted} differ by over {most}")


def units_s(run: Run) -> float:
    """Tokens or images for each second of the processor, in the median step."""
    return float(run["units"] / statistics.median(run["step_cpu_s"]))


def table(known: dict[str, Any]) -> str:
    """Medians over the rounds, with what they are to ours and to the machine's products."""
    header = ("phase", "who", "a CPU second", "ours is", "of the peak", "peak memory, MB", "loss")
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for key, runs_of in known["phases"].items():
        ours = statistics.median(map(units_s, runs_of["osler"]))
        for name, runs in runs_of.items():
            speed = statistics.median(map(units_s, runs))
            ratio = "" if name == "osler" else f"{ours / speed:.2f} times"
            share = ""
            if key in known["flops"] and known["peak_gflops"]:
                gflops = known["flops"][key] / runs[0]["units"] * speed / 1e9
                share = f"{gflops / known['peak_gflops']:.0%}"
            memory = statistics.median(run["peak_bytes"] for run in runs) / 1e6
            cells = (key, name, f"{speed:,.0f}", ratio, share, f"{memory:,.0f}")
            lines.append(f"| {' | '.join(cells)} | {runs[0]['losses'][0]:.3f} |")
    peak = known["peak_gflops"]
    said = f"bfloat16 in registers: {peak:,.0f} GFLOPS\n\n" if peak else ""
    return said + "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", help="a Python with transformers, accelerate, peft, trl ...")
    parser.add_argument("--clip", help="one with open_clip_torch")
    parser.add_argument("--compile", action="store_true", help="also the Trainer's torch_compile")
    parser.add_argument("--only", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES[:2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", default="3", help="that are counted, of each run")
    parser.add_argument("--warm-up", default="1", help="steps before")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Measure, and write all that is known so far."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "train.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    known = {"phases": {}, "flops": {}, "peak_gflops": None} | known
    for size in given.sizes:
        case = given.out / size
        write_case(case, size)
        for phase in given.only:
            runs = known["phases"].setdefault(f"{phase}, {size}", {})
            if phase not in WITHOUT_EQUAL_LOSSES and f"{phase}, {size}" not in known["flops"]:
                ours = contenders(given, phase, case)["osler"]
                known["flops"][f"{phase}, {size}"] = measure([*ours, "--flops"], 1)["flops"]
            for _ in range(given.rounds):
                for name, command in contenders(given, phase, case).items():
                    run = measure(command, given.threads)
                    if name != "osler":
                        check_losses(phase, runs["osler"][-1], run, name)
                    runs.setdefault(name, []).append(run)
                    sys.stderr.write(f"{phase}, {size}, {name}: {units_s(run):,.0f}\n")
                    _save(known, path)
    if (native := library()) is not None:  # which asks the system for its registers
        known["peak_gflops"] = Probe(given.threads, 0.3).peak_gops(native.kernels, "bf16")
    _save(known, path)
    report = table(known)
    (given.out / "train.md").write_text(report)
    sys.stdout.write(report)


def _save(known: dict[str, Any], path: Path) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(known, indent=1))
    part.replace(path)


if __name__ == "__main__":
    main()
