"""How fast files become what a model can be given.

    python -m bench.ingest [--pydicom PYTHON] [--monai PYTHON]

prints one line of JSON. DICOM: files in each transfer syntax to float32 squares of 896 px, and a CT
series of 300 slices to 85 such, on all cores, beside the peers that are named. FHIR: a synthetic
bundle of a megabyte to its timeline, in this process and through the child process that files are
read in, beside full validation by `fhir.resources`, which is what others do before they read a
field. All take turns, with as many runs each; best of them, as other work on the machine can only
slow them down. `--bundle` measures the same on a bundle of one's own.
"""

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fhir.resources.R4B.bundle import Bundle

from bench.ingest_images import SERIES_SLICES, measure_images
from osler.ingest.fhir.documents import resources_of_bytes
from osler.ingest.fhir.fields import forget
from osler.ingest.fhir.read import read_record_bytes
from osler.ingest.fhir.records import Timeline
from osler.ingest.fhir.timeline import choose_patient, timeline_of
from osler.testing.fhir import (
    PATIENT,
    attachment,
    bundle,
    code_only,
    coded,
    lab,
    note,
    resource,
)

TARGET_MS, TARGET_RATIO = 100.0, 10.0
_TESTS = (
    ("Hemoglobin", "718-7", "g/dL"),
    ("Sodium", "2951-2", "mmol/L"),
    ("CRP", "1988-5", "mg/L"),
)


def synthetic_bundle(size_bytes: int) -> bytes:
    """A record of visits, each with tests, a problem, a prescription and a note."""
    resources: list[dict[str, Any]] = [PATIENT]
    total = 0
    for visit in _visits():
        resources += visit
        total += len(json.dumps(visit))
        if total > size_bytes:
            break
    return bundle(*resources)


def _visits() -> Iterator[list[dict[str, Any]]]:
    for number in range(1 << 20):
        day = f"{1990 + number // 360}-{number // 30 % 12 + 1:02}-{number % 28 + 1:02}"
        moment, where = f"{day}T10:15:00-05:00", {"reference": f"Encounter/e{number}"}
        visit = resource(
            "Encounter",
            f"e{number}",
            status="finished",
            type=[coded("Check-up", "185349003")],
            period={"start": moment, "end": moment},
            **{"class": {"code": "AMB"}},
        )
        condition = resource(
            "Condition",
            f"c{number}",
            clinicalStatus=code_only("active"),
            code=coded("Anemia", "271737000"),
            onsetDateTime=moment,
            encounter=where,
        )
        request = resource(
            "MedicationRequest",
            f"m{number}",
            status="active",
            intent="order",
            medicationCodeableConcept=coded("Ferrous sulfate 325 mg", "310325"),
            authoredOn=moment,
            encounter=where,
            dosageInstruction=[{"text": "one in the morning"}],
        )
        limits = {"low": {"value": 12, "unit": "g/dL"}, "high": {"value": 16, "unit": "g/dL"}}
        labs = [
            lab(
                f"o{number}-{place}",
                moment,
                10 + number % 7 + place / 10,
                unit,
                name=name,
                code=code,
                encounter=where,
                referenceRange=[limits],
            )
            for place, (name, code, unit) in enumerate(_TESTS * 3)
        ]
        letter = note(f"n{number}", moment, attachment("Dear colleague, " * 40))
        yield [visit, condition, request, *labs, letter]


def in_process(data: bytes) -> Timeline:
    """A timeline as the child process makes it: nothing is remembered from the record before."""
    found = resources_of_bytes(data, "bundle")
    timeline = timeline_of(found, choose_patient(found, None))
    forget()
    return timeline


def best_ms(steps: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """The shortest of several runs of each, which take turns."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(runs):
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
    return [min(taken) * 1e3 for taken in times]


def measure_fhir(data: bytes, runs: int) -> dict[str, Any]:
    """A bundle to its timeline, beside its validation."""
    ours, child, peer = best_ms(
        (
            lambda: in_process(data),
            lambda: read_record_bytes(data, "bundle"),
            lambda: Bundle.model_validate_json(data),
        ),
        runs,
    )
    return {
        "bundle_bytes": len(data),
        "events": len(in_process(data).events),
        "timeline_ms": round(ours, 2),
        "through_child_ms": round(child, 2),
        "fhir_resources_ms": round(peer, 2),
        "times_as_fast_in_process": round(peer / ours, 1),
        "times_as_fast": round(peer / child, 1),
        "reached": child < TARGET_MS and peer >= TARGET_RATIO * child,
    }


def _bundle(arguments: argparse.Namespace) -> bytes:
    if arguments.bundle is None:
        return synthetic_bundle(int(arguments.megabytes * 1e6))
    data: bytes = arguments.bundle.read_bytes()
    return gzip.decompress(data) if arguments.bundle.suffix == ".gz" else data


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--megabytes", type=float, default=1.0, help="of the FHIR bundle")
    parser.add_argument("--bundle", type=Path, help="a FHIR bundle's JSON, maybe gzipped")
    parser.add_argument("--runs", type=int, default=20, help="of the bundle")
    parser.add_argument("--only", choices=("fhir", "images"))
    parser.add_argument("--files", type=int, default=16, help="of each kind")
    parser.add_argument("--slices", type=int, default=SERIES_SLICES, help="of the series")
    parser.add_argument("--image-runs", type=int, default=3, help="of each kind")
    parser.add_argument("--kinds", nargs="*", help="as ct-uncompressed; all by default")
    parser.add_argument("--pydicom", help="a Python that has pydicom and Pillow", metavar="PYTHON")
    parser.add_argument("--monai", help="a Python that has MONAI", metavar="PYTHON")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    if arguments.only != "images":
        found["fhir"] = measure_fhir(_bundle(arguments), arguments.runs)
    if arguments.only != "fhir":
        peers = [(way, getattr(arguments, way)) for way in ("pydicom", "monai")]
        with TemporaryDirectory() as folder:
            found["images"] = measure_images(
                Path(folder),
                [(way, python) for way, python in peers if python],
                files=arguments.files,
                series=arguments.slices,
                runs=arguments.image_runs,
                kinds=arguments.kinds,
            )
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
