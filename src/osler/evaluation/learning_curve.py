"""Measures how well a linear probe does with few labels: data efficiency of encoders.

    python -m osler.evaluation.learning_curve --data PACK --encoder nano --encoder out/medsiglip

A probe of each set learns from 10, 30, 100, 300 and all labelled training images, several times
drawn anew, and is measured by its area under the curve on the validation images. JSON goes to
standard output, progress to standard error.

Shapes: N images, C labels.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from osler.errors import OslerError
from osler.evaluation.class_task import TITLES, ClassTask, class_task
from osler.evaluation.embedded import EmbeddedImages, embed_pack
from osler.evaluation.linear_probe import fit_probe
from osler.evaluation.metrics import macro_auc
from osler.evaluation.speed import fast_encoder

LABELS = (10, 30, 100, 300, None)
DRAWS = 5


@dataclass(frozen=True, kw_only=True)
class Point:
    """A probe's area under the curve after so many labels.

    Attributes:
        images: labelled training images that it learnt from.
        auc: mean over the draws.
        deviation: over the draws; 0 where all images were taken, which is one draw.
        draws: how many.
    """

    images: int
    auc: float
    deviation: float
    draws: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print JSON, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m osler.evaluation.learning_curve", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="the data pack")
    parser.add_argument(
        "--encoder",
        action="append",
        metavar="NAME",
        help="a MedSigLIP: name or folder; may be given several times (default: the nano)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images of each set")
    args = parser.parse_args(argv)
    try:
        curves = {
            name: {
                set_name: [asdict(point) for point in points]
                for set_name, points in learning_curves(args.data, name, args.limit).items()
            }
            for name in args.encoder or ["medsiglip-nano"]
        }
    except OslerError as error:
        sys.stderr.write(f"osler: {error}\n")
        return 1
    sys.stdout.write(json.dumps(curves, indent=2) + "\n")
    return 0


def learning_curves(
    data: str | Path, encoder: str, limit: int | None = None
) -> dict[str, list[Point]]:
    """The curves of all sets that have training and validation images.

    Args:
        data: the data pack.
        encoder: a MedSigLIP: name or folder.
        limit: at most so many images of each set and split, the first ones.

    Raises:
        OslerError: the pack cannot be read, or the encoder cannot be loaded.
    """
    with fast_encoder(encoder) as embedder:
        val = embed_pack(embedder, data, "val", limit)
        train = embed_pack(embedder, data, "train", limit)
    names = [name for name in TITLES if name in train and name in val]
    return {
        name: learning_curve(train[name], val[name], name)
        for name in tqdm(names, desc="probing", unit="set")
    }


def learning_curve(
    train: EmbeddedImages, val: EmbeddedImages, set_name: str, seed: int = 0
) -> list[Point]:
    """One set's curve; numbers of labels that the set does not reach are left out.

    Args:
        train: what probes learn from.
        val: what they are measured on.
        set_name: which set both are of.
        seed: of the draws.
    """
    learnt, task = class_task(set_name, train.items), class_task(set_name, val.items)
    vectors_ND = train.vectors_ND[learnt.rows]
    unseen_ND = val.vectors_ND[task.rows]
    points = []
    for wanted in LABELS:
        count = len(learnt.rows) if wanted is None else wanted
        if wanted is not None and wanted >= len(learnt.rows):
            continue
        areas = []
        for draw in range(1 if wanted is None else DRAWS):
            rows = _drawn(learnt, count, np.random.default_rng((seed, count, draw)))
            probe = fit_probe(
                vectors_ND[rows],
                learnt.truth_NC[rows],
                [learnt.groups[row] for row in rows],
                exclusive=learnt.exclusive,
            )
            areas.append(macro_auc(task.truth_NC, probe.probabilities(unseen_ND)))
        points.append(
            Point(
                images=count,
                auc=float(np.mean(areas)),
                deviation=float(np.std(areas)),
                draws=len(areas),
            )
        )
    return points


def _drawn(task: ClassTask, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Images at random, but one of each class among them, as whoever labels few would see to."""
    order = rng.permutation(len(task.rows))
    first_of = {
        int(column): row for row in order[::-1] for column in task.truth_NC[row].nonzero()[0]
    }
    chosen = list(dict.fromkeys([*first_of.values(), *order]))[:count]
    return np.array(chosen)


if __name__ == "__main__":
    sys.exit(main())
