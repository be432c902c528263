"""The two nano models from random weights, phase by phase.

    osler train nano --data DIR --out DIR

    encoder   images and captions: sigmoid loss, labels beside it; a third of each image's patches
    refine    the same, on whole images
    heads     the same, over a vision tower that rests
    text      the decoder reads
    images    the decoder learns to speak of images

Each phase leaves its model in `<out>/<phase>/model` and is not run again once that is there; so
a run that was interrupted goes on, and a phase whose folder was removed is trained anew.
The models as they are released are in `<out>/medsiglip-nano` and `<out>/medgemma-nano`.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from osler.evaluation.zero_shot import zero_shot_figures
from osler.ingest.image_pack import PackedImage, read_image_pack
from osler.models.checkpoint import load_medgemma, load_medsiglip
from osler.models.config import medgemma_nano, medsiglip_nano
from osler.models.hf_config import CONFIG_FILE
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.checkpoint_extras import DEMONSTRATION
from osler.tasks.encoder import ImageTextEncoder
from osler.tasks.locate import locate
from osler.training.contrastive import initialise as initialise_encoders
from osler.training.conversation import TrainingSequence
from osler.training.decoder import Batch, DecoderTask, initialise, padded_batch
from osler.training.features import encode_images
from osler.training.image_rows import instruction
from osler.training.images import load_squares
from osler.training.lessons import (
    LessonBatches,
    Lessons,
    LessonTask,
    Show,
    WithClasses,
    kept_views,
    varied_images,
)
from osler.training.loop import LoopConfig, train
from osler.training.recipes.encoder import caption_tokenizer
from osler.training.recipes.job import Job, in_own_memory, part, save_result
from osler.training.recipes.pretrain import (
    IMAGE_ROWS,
    IMAGE_TEXT_LENGTH,
    TEXT,
    TEXT_SHARE,
    image_sequence,
    one_text,
    text_validation,
    train_on_text,
    with_text,
)
from osler.training.streams.batches import Ahead, SampleBatches
from osler.training.streams.mixture import Drawn, Mixture
from osler.training.streams.shards import find_shards

_LOOP = LoopConfig(steps=3600, warmup_steps=100, bf16=True, compile=True)
ENCODER = replace(_LOOP, learning_rate=4e-4, weight_decay=0.02)
REFINE = replace(ENCODER, steps=120, learning_rate=1e-4, seed=1)
HEADS = replace(ENCODER, steps=1500, learning_rate=3e-4)
READ = replace(TEXT, learning_rate=2e-3)
SPEAK = replace(READ, steps=1500, learning_rate=1e-3)

_IMAGES, _TEXTS = 64, 48
# Of the 196 patches of an image.
_KEPT_PATCHES = 64
# Images of sets with fewer than so many are stored in so many views more.
_SMALL_SET = 1000
_MORE_VIEWS = 5
# How often a question is asked that is too long with its answer, before it is cut.
_TRIES = 4


def nano(job: Job) -> Path:
    """Train both, every phase that is not done; they are left in the run's folder."""
    phases: dict[str, Callable[[Job, Path], None]] = {
        "encoder": _encoder,
        "refine": _refine,
        "heads": _heads,
        "text": _text,
        "images": _images,
    }
    for name, phase in phases.items():
        if not (_model(job, name) / CONFIG_FILE).exists():
            phase(job, job.out / name)
    encoders = load_medsiglip(_model(job, "heads"))
    decoder = load_medgemma(_model(job, "images"))
    for model, family in ((encoders, "medsiglip"), (decoder, "medgemma")):
        folder = job.out / f"{family}-nano"
        save_result(
            model,
            folder,
            like=locate("nano", "medsiglip" if family == "medsiglip" else "medgemma"),
            says=DEMONSTRATION,
            dtype=torch.bfloat16,
        )
    return job.out


def _encoder(job: Job, out: Path) -> None:
    torch.manual_seed(job.seed or 0)
    model = MedSiglip(medsiglip_nano())
    items, squares = _training_images(job)
    initialise_encoders(model, squares)
    patches = model.config.vision_config.grid**2
    show = varied_images(items, squares, patches, _KEPT_PATCHES)
    _lessons(job, model, items, show, ENCODER, out)


def _refine(job: Job, out: Path) -> None:
    model = _trained_encoders(job, "encoder")
    items, squares = _training_images(job)
    show = varied_images(items, squares, model.config.vision_config.grid**2, kept_patches=None)
    _lessons(job, model, items, show, REFINE, out)


def _heads(job: Job, out: Path) -> None:
    """Several times as fast, which serves the small sets most."""
    model = _trained_encoders(job, "refine")
    model.vision_model.requires_grad_(False)
    items = list(read_image_pack(job.data, "train"))
    show = kept_views(*_features(job, items))
    _lessons(job, model, items, show, HEADS, out, choice_weight=3.0)


def _lessons(
    job: Job,
    model: MedSiglip,
    items: Sequence[PackedImage],
    show: Show,
    loop: LoopConfig,
    out: Path,
    choice_weight: float = 1.0,
) -> None:
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
    held_back = list(read_image_pack(job.data, "val"))

    def evaluate() -> dict[str, float]:
        encoder = ImageTextEncoder(model, name=out.name, folder=like)
        return {figure.name: figure.value for figure in zero_shot_figures(encoder, held_back)}

    torch.manual_seed(config.seed)
    task = LessonTask(
        WithClasses(model, len(lessons.classes)),
        Ahead(batches),
        choice_weight=choice_weight,
        evaluate=evaluate,
    )
    about = job.about(f"nano: {out.name}", find_shards(part(job.data, "images")))
    train(task, config, out, resume=job.resume, about=about)
    save_result(model, out / "model", like=like)


def _text(job: Job, out: Path) -> None:
    like = locate("nano", "medgemma")
    model = _fresh_decoder(job)
    texts = find_shards(part(job.data, "text"))
    train_on_text(job, model, Tokenizer.from_folder(like), texts, READ, out)
    save_result(model, out / "model", like=like)


def _images(job: Job, out: Path) -> None:
    config = job.loop(SPEAK)
    like = locate("nano", "medgemma")
    tokenizer = Tokenizer.from_folder(like)
    model = in_own_memory(load_medgemma(_model(job, "text")))
    model.vision_tower.load_state_dict(_trained_encoders(job, "heads").vision_model.state_dict())
    model.requires_grad_(False)
    model.language_model.requires_grad_(True)
    model.multi_modal_projector.requires_grad_(True)
    length = model.config.mm_tokens_per_image + IMAGE_TEXT_LENGTH
    items = list(read_image_pack(job.data, "train"))
    patches_NPD, views = _features(job, items)
    texts = find_shards(part(job.data, "text"))

    def sample(drawn: Drawn) -> tuple[TrainingSequence, int | None]:
        if drawn.source in texts:
            return one_text(drawn, tokenizer, model), None
        image, rng = drawn.read().fields["image"], drawn.rng()
        for _ in range(_TRIES):
            turn = instruction(items[image], rng)
            sequence = image_sequence([turn], tokenizer, model)
            if len(sequence.ids) <= length:
                break
        return sequence, rng.choice(views[image])

    def collate(samples: Sequence[tuple[TrainingSequence, int | None]]) -> Batch:
        shown = [view for _, view in samples if view is not None]
        pooled = None
        if shown:
            pooled = model.multi_modal_projector.pooled(patches_NPD[shown].float())
        return padded_batch(
            [sequence for sequence, _ in samples],
            pad=model.config.pad_token_id,
            length=length,
            pooled_NTD=pooled,
        )

    lessons = Lessons(items).epochs(config.seed)
    batches = SampleBatches(
        Mixture(
            {"lessons": lessons, **texts},
            with_text({"lessons": 1.0}, texts, TEXT_SHARE),
            config.seed,
        ),
        sample,
        collate,
        job.batch_size or IMAGE_ROWS,
        job.ranks,
    )
    task = DecoderTask(model, batches, text_validation(job.data, texts, tokenizer, model))
    about = job.about("nano: images", {**find_shards(part(job.data, "images")), **texts})
    train(task, config, out, resume=job.resume, about=about)
    save_result(model, out / "model", like=like)


def _features(job: Job, items: Sequence[PackedImage]) -> tuple[Tensor, list[list[int]]]:
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
        tower = _trained_encoders(job, "refine").vision_model
        squares = load_squares(items, medsiglip_nano().vision_config.image_size)
        sets = [item.set_name for item in items]
        plain = encode_images(tower, squares, sets, varied=False)
        again = encode_images(tower, squares[varied], [sets[i] for i in varied], varied=True)
        partial = path.with_suffix(".partial")
        torch.save({"patches_NPD": torch.cat([plain, again])}, partial)
        os.replace(partial, path)
    job.ranks.wait()
    # Mapped, so that ranks of one machine share the memory.
    patches_NPD: Tensor = torch.load(path, weights_only=True, mmap=True)["patches_NPD"]
    return patches_NPD, rows


def _training_images(job: Job) -> tuple[list[PackedImage], Tensor]:
    items = list(read_image_pack(job.data, "train"))
    return items, load_squares(items, medsiglip_nano().vision_config.image_size)


def _fresh_decoder(job: Job) -> MedGemma:
    torch.manual_seed(job.seed or 0)
    model = MedGemma(medgemma_nano())
    initialise(model)
    return model


def _trained_encoders(job: Job, phase: str) -> MedSiglip:
    return in_own_memory(load_medsiglip(_model(job, phase)))


def _model(job: Job, phase: str) -> Path:
    return job.out / phase / "model"
