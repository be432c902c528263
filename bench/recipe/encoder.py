"""Phase 1: what the encoder tells apart, before and after; and what captions add to labels.

Besides the run's own phases, three networks learn for a while from the same random weights and the
same batches of small images: from labels alone, from labels and captions, and with a teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.recipe.figures import area, area_gain, mean_area_gain
from bench.recipe.record import Record, Series, curves, points, proof, table
from bench.recipe.setting import Setting
from osler.evaluation.class_task import TITLES
from osler.evaluation.embedded import EmbeddedImages, embed_pack
from osler.evaluation.encoder_figures import PROBE, ZERO_SHOT, Told, told_by_encoder
from osler.evaluation.figure import Figure
from osler.evaluation.learning_curve import LABELS, Point, learning_curve
from osler.evaluation.speed import fast_encoder
from osler.tasks.locate import locate
from osler.training.recipes import nano_encoders
from osler.training.recipes.job import save_result
from osler.training.recipes.nano_images import decoded, nano_images

RANDOM = "random weights"
ALONE, CAPTIONS, TAUGHT = "labels alone", "labels and captions", "with the teacher too"
PHASES = ("encoder", "refine", "heads")
# Whose need of labels is measured, and on which sets: those with more images than that.
CURVES = (ALONE, CAPTIONS, "heads")
LARGE = (
    *("cxr_kermany", "derm_ham10000", "fundus_odir512"),
    *("mri_brain_tumor", "histo_lc25000_lung"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a network makes of the images: `told` by set, embeddings for the learning curves."""

    train: dict[str, EmbeddedImages]
    val: dict[str, EmbeddedImages]
    told: dict[str, Told]


def prove(setting: Setting) -> Record:
    """Train what is compared, then measure all networks in the same way."""
    steps, limit = setting.few(400, 1), setting.few(800, 12)
    folders = {**_trained(setting, steps), **{name: setting.phase(name) for name in PHASES}}
    seen = {name: _seen(setting, name, folder, limit) for name, folder in folders.items()}
    sets = [name for name in TITLES if all(name in one.told for one in seen.values())]
    told = {name: [one.told[of] for of in sets] for name, one in seen.items()}
    large = [name for name in LARGE if name in sets]
    points_of = {name: _curves(seen[name], large, name) for name in CURVES}
    return proof(
        tables=_tables(told, points_of),
        plots=[
            points(
                "encoder-gain.png",
                f"What the contrastive phase adds to {ALONE} after {steps} steps",
                "gain of the linear probe's AUC",
                [*_gains(told, ALONE, CAPTIONS), *_gains(told, CAPTIONS, TAUGHT)],
            ),
            curves(
                "encoder-labels.png",
                "How many labelled images a probe needs",
                "labelled images",
                "AUC on validation images",
                _panels(points_of, large),
                log_x=True,
            ),
        ],
        settings={
            "steps of the compared networks": steps,
            "training images a probe learns from, of each set": limit,
            "side of the compared networks' images, px": 128,
        },
    )


def _trained(setting: Setting, steps: int) -> dict[str, Path]:
    """The compared networks, each trained unless it is there."""
    out = setting.out / "encoder"
    # The run's folder has the images decoded, and the teacher.
    job = replace(setting.job(setting.run, setting.run, steps), model=None)
    items = nano_images(setting.data, "train")
    squares = decoded(job, items, "train", 160)
    loop = replace(
        nano_encoders.ENCODER, warmup_steps=steps // 10, ema_decay=None, checkpoint_every=100
    )
    arms: dict[str, dict[str, Any]] = {
        ALONE: {"pair_weight": 0.0, "choice_weight": 0.0, "teacher_weight": 0.0},
        CAPTIONS: {"teacher_weight": 0.0},
        TAUGHT: {},
    }
    folders = {name: out / name.replace(" ", "-") / "model" for name in (RANDOM, *arms)}
    for name, folder in folders.items():
        if folder.exists():
            continue
        model = nano_encoders.untrained(job, squares)
        if name == ALONE:  # nothing asks for the text tower, nor for how alike is alike
            model.text_model.requires_grad_(False)
            model.logit_scale.requires_grad_(False)
            model.logit_bias.requires_grad_(False)
        if name in arms:
            show = nano_encoders.shown_taught(job, model, items)
            nano_encoders.learn(job, model, items, show, loop, folder.parent, **arms[name])
        save_result(model, folder, like=locate("nano", "medsiglip"))
    return folders


def _seen(setting: Setting, name: str, folder: Path, limit: int) -> Seen:
    with fast_encoder(str(folder)) as encoder:
        train = embed_pack(encoder, setting.pack, "train", limit)
        val = embed_pack(encoder, setting.pack, "val", setting.few(10**6, limit))
        told = tqdm(told_by_encoder(encoder, train, val), desc=f"probing {name}", total=len(TITLES))
        return Seen(train=train, val=val, told={one.task.set_name: one for one in told})


def _curves(seen: Seen, sets: Sequence[str], name: str) -> dict[str, list[Point]]:
    return {
        of: learning_curve(seen.train[of], seen.val[of], of)
        for of in tqdm(sets, desc=f"few labels, {name}")
    }


def _panels(points_of: dict[str, dict[str, list[Point]]], sets: Sequence[str]) -> dict[str, Series]:
    return {
        TITLES[of]: {
            name: [(point.images, point.auc, point.deviation) for point in of_network[of]]
            for name, of_network in points_of.items()
        }
        for of in sets
    }


def _tables(
    told: dict[str, list[Told]], points_of: dict[str, dict[str, list[Point]]]
) -> list[Record]:
    last = PHASES[-1]
    probe_gain = [
        area_gain(one, other, PROBE, f"{last} against {RANDOM}")
        for one, other in zip(told[RANDOM], told[last], strict=True)
    ]
    return [
        table(
            "Linear probe, before and after each part of the phase",
            "Area under the curve on the validation images, n of them; the probes learn from "
            "training images.",
            [*_areas(told, PROBE, (RANDOM, *PHASES)), *probe_gain],
        ),
        table(
            "Zero-shot, before and after each part of the phase",
            "The same by comparing images with prompts; 0.5 is guessing.",
            _areas(told, ZERO_SHOT, (RANDOM, *PHASES)),
        ),
        table(
            "What captions add to labels, and a teacher to both: linear probe",
            "Same random weights, same batches, same number of steps. Gains are paired: both "
            "networks are measured on the same images, and drawn together.",
            [
                *_areas(told, PROBE, (ALONE, CAPTIONS, TAUGHT)),
                *_gains(told, ALONE, CAPTIONS),
                *_gains(told, CAPTIONS, TAUGHT),
            ],
        ),
        table(
            "The same networks zero-shot",
            "Labels alone teach no text tower: what they leave is guessing.",
            [
                *_areas(told, ZERO_SHOT, (ALONE, CAPTIONS, TAUGHT)),
                *_gains(told, ALONE, CAPTIONS, ZERO_SHOT),
            ],
        ),
        table(
            "Few labels: linear probe, mean over the large sets",
            "n is how many probes were fitted; intervals are over the images drawn to learn from.",
            _few_labels(points_of),
        ),
    ]


def _areas(told: dict[str, list[Told]], by: str, networks: Sequence[str]) -> list[Figure]:
    return [area(one, by, network) for network in networks for one in told[network]]


def _gains(told: dict[str, list[Told]], before: str, after: str, by: str = PROBE) -> list[Figure]:
    says = f"{after}, against {before}"
    pairs = zip(told[before], told[after], strict=True)
    whole = mean_area_gain("mean over the sets", told[before], told[after], by, says)
    return [*(area_gain(one, other, by, says) for one, other in pairs), whole]


def _few_labels(points_of: dict[str, dict[str, list[Point]]]) -> list[Figure]:
    found = []
    for network, of_network in points_of.items():
        for count in filter(None, LABELS):
            drawn = [
                point
                for of_set in of_network.values()
                for point in of_set
                if point.images == count and point.draws > 1
            ]
            if not drawn:
                continue
            mean = float(np.mean([point.auc for point in drawn]))
            # Of a mean of means of independent draws.
            error = sum(point.deviation**2 / (point.draws - 1) for point in drawn) ** 0.5
            half = 1.96 * error / len(drawn)
            found.append(
                Figure(
                    name=f"{count} labelled images",
                    metric="AUC",
                    value=mean,
                    low=mean - half,
                    high=mean + half,
                    images=sum(point.draws for point in drawn),
                    by=network,
                )
            )
    return found
