"""The nano's encoders: images and captions by the sigmoid loss, beside labels and a teacher.

encoder   images of 128 px: a third of the patches, a third of the time
refine    the same at 224 px, the positions resampled
heads     pooling head and text tower, over a vision tower that rests
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from osler.ingest.image_pack import PackedImage
from osler.models.checkpoint import load_medsiglip
from osler.models.config import medsiglip_nano
from osler.models.medsiglip import MedSiglip
from osler.tasks.locate import locate
from osler.training.contrastive import initialise
from osler.training.convolutional import MAP_CHANNELS
from osler.training.features import encode_images
from osler.training.lessons import LessonBatches, Lessons, LessonTask, WithClasses, right_in_sets
from osler.training.loop import LoopConfig, train
from osler.training.recipes.encoder import caption_tokenizer
from osler.training.recipes.job import Job, in_own_memory, part, save_result
from osler.training.recipes.nano_images import decoded, nano_images
from osler.training.recipes.nano_teacher import teacher_of
from osler.training.resolution import at_resolution
from osler.training.shown import Show, kept_views, taught, varied_images
from osler.training.streams.batches import Ahead
from osler.training.streams.shards import find_shards

ENCODER = LoopConfig(
    steps=2600,
    optimizer="muon",
    learning_rate=8e-4,
    warmup_steps=100,
    weight_decay=0.2,
    ema_decay=0.998,
    bf16=True,
    compile=True,
)
REFINE = replace(ENCODER, steps=450, learning_rate=5e-4, warmup_steps=50, seed=1)
HEADS = replace(ENCODER, steps=1000, learning_rate=3e-4)

_IMAGES, _TEXTS = 64, 48
# What the classifier and the follower of a phase are left in.
_HELPERS = "helpers.safetensors"
# What the tower sees first, and what that is cut out of.
_SMALL_PX, _STORED_PX = 128, 160
# Images of sets with fewer than so many are stored in so many views more.
_SMALL_SET = 1000
_MORE_VIEWS = 5


def encoder(job: Job, out: Path) -> None:
    """From random weights, on small images."""
    items = nano_images(job.data, "train")
    model = untrained(job, decoded(job, items, "train", _STORED_PX))
    learn(job, model, items, shown_taught(job, model, items), ENCODER, out)
    grown = at_resolution(model, medsiglip_nano().vision_config.image_size)
    save_result(grown, out / "model", like=locate("nano", "medsiglip"))


def untrained(job: Job, squares_N3SS: Tensor) -> MedSiglip:
    """What the first phase begins with, for small images; always the same for a seed."""
    sizes = medsiglip_nano()
    torch.manual_seed(job.seed or 0)
    model = MedSiglip(
        replace(sizes, vision_config=replace(sizes.vision_config, image_size=_SMALL_PX))
    )
    initialise(model, squares_N3SS)
    return model


def refine(job: Job, out: Path) -> None:
    """At the size that it will see."""
    model = in_own_memory(load_medsiglip(job.out / "encoder" / "model"))
    items = nano_images(job.data, "train")
    learn(job, model, items, shown_taught(job, model, items), REFINE, out, after="encoder")
    save_result(model, out / "model", like=locate("nano", "medsiglip"))


def heads(job: Job, out: Path) -> None:
    """Several times as fast, which serves the small sets most."""
    model = in_own_memory(load_medsiglip(job.out / "refine" / "model"))
    model.vision_model.requires_grad_(False)
    items = nano_images(job.data, "train")
    show = kept_views(*features(job, items, model))
    learn(job, model, items, show, HEADS, out, after="refine", choice_weight=3.0)
    save_result(model, out / "model", like=locate("nano", "medsiglip"))


def features(
    job: Job, items: Sequence[PackedImage], encoders: MedSiglip
) -> tuple[Tensor, list[list[int]]]:
    """Patches of several views of every image, (rows, P, D), made once; and each image's rows.

    An image is there as it is and varied; one of a small set, which comes up often, varied anew
    several times.
    """
    path = job.out / "features.pt"
    in_set = Counter(item.set_name for item in items)
    small = [i for i, item in enumerate(items) if in_set[item.set_name] < _SMALL_SET]
    varied = [*range(len(items)), *small * _MORE_VIEWS]
    rows: list[list[int]] = [[i] for i in range(len(items))]
    for row, index in enumerate(varied, start=len(items)):
        rows[index].append(row)
    if not path.exists() and job.ranks.rank == 0:
        tower = encoders.vision_model
        squares = decoded(job, list(items), "train", medsiglip_nano().vision_config.image_size)
        sets = [item.set_name for item in items]
        plain = encode_images(tower, squares, sets, varied=False)
        again = encode_images(tower, squares[varied], [sets[i] for i in varied], varied=True)
        partial_file = path.with_suffix(".partial")
        torch.save({"patches_NPD": torch.cat([plain, again])}, partial_file)
        os.replace(partial_file, path)
    job.ranks.wait()
    # Mapped, so that ranks of one machine share the memory.
    patches_NPD: Tensor = torch.load(path, weights_only=True, mmap=True)["patches_NPD"]
    return patches_NPD, rows


def shown_taught(job: Job, model: MedSiglip, items: Sequence[PackedImage]) -> Show:
    """Training images as the tower is shown them, with what the run's teacher makes of them."""
    sizes = model.config.vision_config
    squares = decoded(job, list(items), "train", stored_px(model))
    show = varied_images(items, squares, sizes.image_size)
    return taught(show, teacher_of(job), sizes.grid)


def stored_px(model: MedSiglip) -> int:
    """Side of the squares that the images for a tower are cut out of."""
    return max(_STORED_PX, model.config.vision_config.image_size)


def learn(
    job: Job,
    model: MedSiglip,
    items: Sequence[PackedImage],
    show: Show,
    loop: LoopConfig,
    out: Path,
    *,
    after: str | None = None,
    pair_weight: float = 1.0,
    choice_weight: float = 1.0,
    teacher_weight: float = 1.0,
) -> None:
    """Train encoders in place.

    Args:
        job: the call of the recipe.
        model: with the weights to start from; what needs no gradient rests.
        items: images to learn from.
        show: these, as the model is shown them.
        loop: how.
        out: folder of the run.
        after: the phase before, whose helpers go on; None for helpers that know nothing.
        pair_weight: see `LessonTask`.
        choice_weight: likewise.
        teacher_weight: likewise, where `show` brings a teacher.
    """
    config = job.loop(loop)
    # Whitened patches rest: their gradient alone, a convolution's, would take a third of the time.
    model.vision_model.embeddings.patch_embedding.requires_grad_(False)
    like = locate("nano", "medsiglip")
    lessons = Lessons(items)
    batches = LessonBatches(
        lessons,
        show,
        caption_tokenizer(like, model.config.text_config.max_position_embeddings),
        batch_size=job.batch_size or _IMAGES,
        texts=_TEXTS,
        ranks=job.ranks,
        seed=config.seed,
    )
    torch.manual_seed(config.seed)
    resting = not any(p.requires_grad for p in model.vision_model.parameters())
    follows = MAP_CHANNELS if teacher_weight and not resting else 0
    learner = WithClasses(model, len(lessons.classes), follows)
    if after is not None:
        learner.load_helpers(job.out / after / _HELPERS)
    held_back = nano_images(job.data, "val")
    held_back_squares = decoded(job, held_back, "val", stored_px(model))

    def evaluate() -> dict[str, float]:
        return right_in_sets(learner.scores, lessons, held_back, held_back_squares)

    task = LessonTask(
        learner,
        Ahead(batches),
        pair_weight=pair_weight,
        choice_weight=choice_weight,
        teacher_weight=teacher_weight,
        evaluate=evaluate,
    )
    about = job.about(f"nano: {out.name}", find_shards(part(job.data, "images")))
    train(task, config, out, resume=job.resume, about=about)
    if job.ranks.rank == 0:
        learner.save_helpers(out / _HELPERS)
