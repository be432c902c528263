"""`python -m osler.evaluation.deidentification`: plants, removes, counts, prints a table."""

import argparse
import sys
import warnings
from collections.abc import Iterator

from tqdm import tqdm

from osler.evaluation.deidentification.measure import Measured, make_corpus, measure
from osler.evaluation.deidentification.planted_pixels import FEW, MANY


def main() -> int:
    """Measure, and fail where less than the share that is asked for is gone."""
    parser = argparse.ArgumentParser(
        prog="python -m osler.evaluation.deidentification",
        description="how much of what was planted in files `osler deidentify` removes",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the identifiers")
    parser.add_argument("--few", action="store_true", help="two images only, and one record")
    parser.add_argument("--no-peers", action="store_true", help="without dicognito and deid")
    parser.add_argument("--show", action="store_true", help="print what is left (it is made up)")
    parser.add_argument("--at-least", type=float, default=0.995, metavar="SHARE")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # the other tools' and pydicom's, of what is planted
    corpus = make_corpus(
        args.seed, pictures=FEW if args.few else MANY, records=1 if args.few else 4
    )
    with tqdm(total=len(corpus.files), desc="cleaning", disable=None) as bar:
        found = measure(
            corpus,
            peers=not args.no_peers,
            progress=lambda done, _: bar.update(done - bar.n) and None,
        )
    sys.stdout.writelines(f"{line}\n" for line in _lines(found))
    if args.show:
        sys.stdout.writelines(
            f"left: {plant.file}: {plant.place}: {plant.value}\n" for plant in found.left
        )
    fails = found.removed < args.at_least or found.broken_references or found.refused
    return 1 if fails else 0


def _lines(found: Measured) -> Iterator[str]:
    tools = list(found.only_by_us)
    yield "| Where | Planted | Left by Osler |" + "".join(f" {tool} |" for tool in tools)
    yield "|---|---:|---:|" + "---:|" * len(tools)
    for place in found.places:
        others = "".join(
            f" {'' if place.left_by[tool] is None else place.left_by[tool]} |" for tool in tools
        )
        yield f"| {place.name} | {place.planted} | {place.left} |{others}"
    yield (
        f"\nremoved: {found.removed:.2%} of {found.planted:,}; refused: {found.refused}; "
        f"broken references: {found.broken_references}"
    )
    for tool in tools:
        yield (
            f"of DICOM, {tool} leaves {found.only_by_us[tool]:,} that Osler removes, "
            f"and removes {found.only_by_them[tool]:,} that Osler leaves"
        )


if __name__ == "__main__":
    sys.exit(main())
