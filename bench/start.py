"""From the start of a process to the first token of an answer, on a packed folder.

    python -m bench.start FOLDER [--repeat 7]

Each run is a whole `osler ask` in a process of its own, timed until it prints its answer of one
token. The first run, which fills the page cache, does not count. `stages` says where the time goes,
in one more process: the interpreter with the command line's imports, the imports of the task, the
weights (mapped and checked), the tokenizer and the processor, the engine, and the first token.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

QUESTION = "Describe the findings of a chest X-ray with pneumonia."
ASK = "import sys; from osler.cli import main; sys.exit(main())"


def first_token_s(folder: Path) -> float:
    """Seconds of one `osler ask`."""
    command = [sys.executable, "-c", ASK, "ask", QUESTION, "--model", str(folder)]
    command += ["--max-new-tokens", "1", "--json"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = process.stdout.read(1)
        seconds = time.perf_counter() - start
        process.stdout.read()
    if process.returncode or not found:
        raise SystemExit(process.returncode or 1)
    return seconds


def stages(folder: Path, started: float) -> dict[str, float]:
    """Seconds of each stage, in this process.

    Args:
        folder: a packed MedGemma.
        started: when it was started, in `time.time`.
    """
    marks = [("interpreter", time.time() - started)]
    begin = time.perf_counter()

    def mark(name: str) -> None:
        nonlocal begin
        now = time.perf_counter()
        marks.append((name, now - begin))
        begin = now

    import osler.tasks.assistant
    import osler.tasks.content  # as `osler ask` does

    mark("imports")
    model = osler.tasks.assistant.load_assistant(folder, str(folder))
    mark("weights")
    assert model.processor.tokenizer.vocab_size
    mark("tokenizer")
    assert model.engine.context_tokens
    mark("engine")
    model.ask(QUESTION, max_new_tokens=1)
    mark("first_token")
    return {name: round(seconds, 3) for name, seconds in marks}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="a packed MedGemma")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--stages-since", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stages_since is not None:
        sys.stdout.write(json.dumps(stages(given.folder, given.stages_since)) + "\n")
        return
    first_token_s(given.folder)
    runs = [first_token_s(given.folder) for _ in range(given.repeat)]
    command = [sys.executable, "-m", "bench.start", str(given.folder), "--stages-since"]
    done = subprocess.run([*command, repr(time.time())], capture_output=True, check=True)
    result = {
        "first_token_s": round(statistics.median(runs), 3),
        "runs": [round(run, 3) for run in runs],
        "stages": json.loads(done.stdout),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
