"""The nano's decoder: it reads, then it learns to speak of images.

text     the decoder on medical text
images   decoder and projector on questions about images, over a tower that rests
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from osler.models.checkpoint import load_medgemma, load_medsiglip
from osler.models.config import medgemma_nano
from osler.models.medgemma import MedGemma
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.locate import locate
from osler.training.conversation import TrainingSequence
from osler.training.decoder import Batch, DecoderTask, initialise, padded_batch
from osler.training.image_rows import instruction
from osler.training.lessons import Lessons
from osler.training.loop import train
from osler.training.recipes.job import Job, in_own_memory, part, save_result
from osler.training.recipes.nano_encoders import features
from osler.training.recipes.nano_images import HELD_OUT, nano_images
from osler.training.recipes.pretrain import (
    IMAGE_ROWS,
    IMAGE_TEXT_LENGTH,
    TEXT,
    TEXT_SHARE,
    caption_rows,
    caption_validation,
    image_sequence,
    one_text,
    text_validation,
    train_on_text,
    with_text,
)
from osler.training.streams.batches import SampleBatches
from osler.training.streams.mixture import Drawn, Mixture
from osler.training.streams.shards import find_shards

READ = replace(TEXT, learning_rate=2e-3)
SPEAK = replace(READ, steps=1500, learning_rate=1e-3)

# How often a question is asked that is too long with its answer, before it is cut.
_TRIES = 4


def text(job: Job, out: Path) -> None:
    """From random weights."""
    like = locate("nano", "medgemma")
    torch.manual_seed(job.seed or 0)
    model = MedGemma(medgemma_nano())
    initialise(model)
    texts = find_shards(part(job.data, "text"))
    train_on_text(job, model, Tokenizer.from_folder(like), texts, READ, out)
    save_result(model, out / "model", like=like)


def images(job: Job, out: Path) -> None:
    """Over the tower of the encoders."""
    config = job.loop(SPEAK)
    like = locate("nano", "medgemma")
    tokenizer = Tokenizer.from_folder(like)
    model = in_own_memory(load_medgemma(job.out / "text" / "model"))
    encoders = load_medsiglip(job.out / "heads" / "model")
    model.vision_tower.load_state_dict(encoders.vision_model.state_dict())
    model.requires_grad_(False)
    model.language_model.requires_grad_(True)
    model.multi_modal_projector.requires_grad_(True)
    length = model.config.mm_tokens_per_image + IMAGE_TEXT_LENGTH
    items = nano_images(job.data, "train")
    patches_NPD, views = features(job, items, encoders)
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
    task = DecoderTask(
        model,
        batches,
        text_validation(job.data, texts, tokenizer, model),
        caption_validation(caption_rows(job.data, HELD_OUT), tokenizer, model),
    )
    about = job.about("nano: images", {**find_shards(part(job.data, "images")), **texts})
    train(task, config, out, resume=job.resume, about=about)
    save_result(model, out / "model", like=like)
