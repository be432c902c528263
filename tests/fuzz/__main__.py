"""A fuzz target: `python -m tests.fuzz FORMAT --runs 10000 --artifacts FOLDER --journal FILE`.

Atheris (libFuzzer) draws mutations by what of the readers they reach. This process is what a worker
is in use: the same work under the same limit of memory; libFuzzer ends it where a file takes more
than five seconds, and keeps the file.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from random import Random

import atheris

# All of pydicom would take longer to instrument than many a run takes.
_INSTRUMENTED = """
    osler.ingest osler.archive.head osler.archive.elements osler.archive.results.attributes
    pydicom.filereader pydicom.fileutil pydicom.values pydicom.encaps pydicom.filebase
    pydicom.pixels.decoders nibabel.nifti1
""".split()

with atheris.instrument_imports(include=_INSTRUMENTED):
    from osler.archive import child as archive
    from osler.archive import worker as archive_worker
    from osler.ingest import decode_worker, scan, worker_pool
    from osler.ingest.fhir import read as records
    from tests.fuzz.journal import Journal
    from tests.fuzz.targets import TARGETS, InProcess, read

# Codecs on damaged data take memory by what it says; more than this is a finding.
_MOST_MIB = 1024
_LONGEST_S = 5
_MOST_BYTES = 1 << 16
_WITHOUT_LIMIT = ("gguf", "safetensors")  # torch maps more than a worker may


def main() -> None:
    """Go through mutations of one format; does not return."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=TARGETS)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    arguments = parser.parse_args()
    target = TARGETS[arguments.format]
    for module, name, work in (
        (worker_pool, "decoding_workers", decode_worker.decoding_work),
        (scan, "decoding_workers", decode_worker.decoding_work),
        (records, "_workers", decode_worker.decoding_work),
        (archive, "_workers", archive_worker.work),
    ):
        setattr(module, name, InProcess(work))
    warnings.simplefilter("ignore")
    logging.disable()
    if arguments.format not in _WITHOUT_LIMIT:
        decode_worker.limit_resources()

    def once(data: bytes) -> None:
        journal.begin(data)
        read(target, data)

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        draw = Random(seed)
        if draw.random() < 0.5:
            return target.mutated(data, draw)[:most]
        return target.mutated(data, draw, lambda inner: atheris.Mutate(inner, most))[:most]

    journal = Journal(arguments.journal, _MOST_BYTES)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            Path(corpus, f"{number:03}").write_bytes(seed)
            read(target, seed)  # libraries are imported in their own time
        options = [
            f"-runs={arguments.runs}",
            f"-seed={arguments.seed}",
            f"-timeout={_LONGEST_S}",
            f"-rss_limit_mb={_MOST_MIB}",
            f"-max_len={_MOST_BYTES}",
            f"-artifact_prefix={arguments.artifacts}/",
            "-len_control=0",
            "-reload=0",
            "-print_final_stats=1",
            "-verbosity=0",
            corpus,
        ]
        atheris.Setup([sys.argv[0], *options], once, custom_mutator=mutator)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
