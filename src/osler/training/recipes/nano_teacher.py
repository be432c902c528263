"""The nano's first phase: a convolutional network learns the labels, to teach the vision tower."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from osler.training.lessons import LessonBatches, Lessons, right_in_sets, varied_images
from osler.training.loop import LoopConfig, train
from osler.training.recipes.job import Job, part
from osler.training.recipes.nano_images import decoded, nano_images
from osler.training.streams.batches import Ahead
from osler.training.streams.shards import find_shards
from osler.training.teacher_network import (
    LabelTask,
    TeacherNetwork,
    TeacherSizes,
    load_teacher,
    save_teacher,
)

_LOOP = LoopConfig(steps=1500, learning_rate=2e-3, warmup_steps=100, weight_decay=0.05, bf16=True)
# Small images first: what is large is learnt at a third of the price. Then once more, from a rate
# that has risen again.
_STAGES = (
    (96, _LOOP),
    (128, replace(_LOOP, learning_rate=1e-3, seed=1)),
    (160, replace(_LOOP, steps=1000, learning_rate=5e-4, seed=2)),
    (160, replace(_LOOP, steps=2000, learning_rate=1e-3, seed=3)),
)
_LARGEST_PX = _STAGES[-1][0]
_BATCH_SIZE = 64


def teacher(job: Job, out: Path) -> None:
    """Train the teacher on ever larger images; it is left in `model` of the folder."""
    items = nano_images(job.data, "train")
    lessons = Lessons(items)
    squares = decoded(job, items, "train", _LARGEST_PX)
    held_back = nano_images(job.data, "val")
    held_back_squares = decoded(job, held_back, "val", _LARGEST_PX)
    torch.manual_seed(job.seed or 0)
    model = TeacherNetwork(TeacherSizes(classes=len(lessons.classes)))
    for number, (side_px, loop) in enumerate(_STAGES, start=1):
        folder = out / f"{number}-{side_px}px"
        if (folder / "model").exists():
            model = load_teacher(folder / "model").requires_grad_(True)
            continue
        config = job.loop(loop)
        batches = LessonBatches(
            lessons,
            varied_images(items, squares, side_px=side_px),
            lambda texts: torch.zeros(len(texts), 0, dtype=torch.int64),
            batch_size=job.batch_size or _BATCH_SIZE,
            texts=0,
            ranks=job.ranks,
            seed=config.seed,
        )

        evaluate = partial(right_in_sets, model, lessons, held_back, held_back_squares)
        task = LabelTask(model, Ahead(batches), evaluate)
        about = job.about("nano: teacher", find_shards(part(job.data, "images")))
        train(task, config, folder, resume=job.resume, about=about)
        if job.ranks.rank == 0:
            save_teacher(model, folder / "model")
        job.ranks.wait()
    if job.ranks.rank == 0:
        save_teacher(model, out / "model")
    job.ranks.wait()
