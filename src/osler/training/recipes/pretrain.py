"""Multimodal pretraining: a MedGemma learns text, then to speak of images with text beside them.

    osler train pretrain --data DIR --out DIR

Text rows have a `text`, or a `prompt` and an `answer`; image rows an image and a text. The vision
tower rests.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from osler.errors import InputError
from osler.models.checkpoint import load_medgemma
from osler.models.medgemma import MedGemma
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.locate import locate
from osler.training.conversation import TrainingSequence, conversation, document
from osler.training.corpus import SPLIT_TEXTS, row_samples
from osler.training.decoder import Batch, DecoderTask, packed_batch, padded_batch
from osler.training.image_rows import description, image_square, pixels, turn
from osler.training.loop import LoopConfig, train
from osler.training.recipes.job import COMMON, Job, in_own_memory, part, save_result
from osler.training.streams.batches import Ahead, PackedBatches, SampleBatches
from osler.training.streams.mixture import Drawn, Mixture, row_counts
from osler.training.streams.shards import Row, ShardFile, Split, all_rows, find_shards

TEXT = replace(COMMON, learning_rate=2e-4, weight_decay=0.05, evaluate_every=250)
IMAGES = replace(TEXT, learning_rate=1e-4, evaluate_every=None)
TEXT_ROWS, TEXT_LENGTH = 16, 256
IMAGE_ROWS = 40
# Beside the images' tokens.
IMAGE_TEXT_LENGTH = 55
# Of text among the sequences of the second part, so that the model stays fluent.
TEXT_SHARE = 0.1
_VALIDATION_ROWS = 64
# Images held back, as many of each source.
_VALIDATION_IMAGES = 256
_IMAGES_TOGETHER = 32

Sources = dict[str, list[ShardFile]]


def pretrain(job: Job) -> Path:
    """Train on text, then on images where there are any; each leaves its `model`."""
    folder = locate(job.model or "nano", "medgemma")
    tokenizer = Tokenizer.from_folder(folder)
    texts = find_shards(part(job.data, "text"))
    images = find_shards(job.data / "images") if (job.data / "images").is_dir() else {}
    if unknown := sorted(job.weights.keys() - texts.keys() - images.keys()):
        raise InputError(f"{job.data}: no source is called {', '.join(unknown)}")
    model = in_own_memory(load_medgemma(folder, dtype=torch.float32))
    train_on_text(job, model, tokenizer, texts, TEXT, job.out / "text")
    trained = job.out / "text" / "model"
    save_result(model, trained, like=folder)
    if images:
        model = in_own_memory(load_medgemma(trained))
        train_on_images(job, model, tokenizer, images, texts, IMAGES, job.out / "images")
        trained = job.out / "images" / "model"
        save_result(model, trained, like=folder)
    return trained


def train_on_text(
    job: Job, model: MedGemma, tokenizer: Tokenizer, texts: Sources, loop: LoopConfig, out: Path
) -> None:
    """The decoder on documents and answers, laid end to end."""
    config = job.loop(loop)
    model.requires_grad_(False)
    model.language_model.requires_grad_(True)

    def sequences(drawn: Drawn) -> list[tuple[list[int], list[bool]]]:
        return [(s.ids, s.learn) for s in text_sequences(drawn, tokenizer, model, "train")]

    batches = PackedBatches(
        Mixture(texts, job.weights_of(texts), config.seed),
        sequences,
        packed_batch,
        batch_size=job.batch_size or TEXT_ROWS,
        length=TEXT_LENGTH + 1,
        ranks=job.ranks,
    )
    task = DecoderTask(model, batches, text_validation(job.data, texts, tokenizer, model))
    train(task, config, out, resume=job.resume, about=job.about("pretrain: text", texts))


def train_on_images(
    job: Job,
    model: MedGemma,
    tokenizer: Tokenizer,
    images: Sources,
    texts: Sources,
    loop: LoopConfig,
    out: Path,
) -> None:
    """Decoder and projector on talk about images, and some text."""
    config = job.loop(loop)
    if model.config.vision_config is None:
        raise ValueError("this model reads text only")
    side_px = model.config.vision_config.image_size
    model.requires_grad_(False)
    model.language_model.requires_grad_(True)
    model.multi_modal_projector.requires_grad_(True)
    length = model.config.mm_tokens_per_image + IMAGE_TEXT_LENGTH

    def sample(drawn: Drawn) -> tuple[TrainingSequence, Tensor | None]:
        if drawn.source in texts:
            return one_text(drawn, tokenizer, model), None
        row, rng = drawn.read(), drawn.rng()
        shown = pixels(image_square(row, side_px), drawn.source, rng)
        return image_sequence([turn(row, rng)], tokenizer, model), shown

    def collate(samples: Sequence[tuple[TrainingSequence, Tensor | None]]) -> Batch:
        shown = [image for _, image in samples if image is not None]
        return padded_batch(
            [sequence for sequence, _ in samples],
            pad=model.config.pad_token_id,
            length=length,
            pixels_NCSS=torch.stack(shown) if shown else None,
        )

    weights = dict(job.weights) or with_text(row_counts(images), texts, TEXT_SHARE)
    batches = SampleBatches(
        Mixture({**images, **texts}, weights, config.seed),
        sample,
        collate,
        job.batch_size or IMAGE_ROWS,
        job.ranks,
    )
    task = DecoderTask(
        model,
        Ahead(batches),
        text_validation(job.data, texts, tokenizer, model),
        caption_validation(caption_rows(job.data), tokenizer, model),
    )
    about = job.about("pretrain: images", {**images, **texts})
    train(task, config, out, resume=job.resume, about=about)


def with_text(images: dict[str, float], texts: Sources, text_share: float) -> dict[str, float]:
    """Weights of images with those of texts, which have a share of their own together."""
    rows = row_counts(texts)
    return {
        **{
            name: weight / sum(images.values()) * (1 - text_share)
            for name, weight in images.items()
        },
        **{name: count / sum(rows.values()) * text_share for name, count in rows.items()},
    }


def text_sequences(
    drawn: Drawn, tokenizer: Tokenizer, model: MedGemma, split: Split
) -> list[TrainingSequence]:
    """The sequences of a row of text: documents as they are, questions in Gemma's template."""
    bos, eos = model.config.bos_token_id, model.config.eos_token_ids[0]
    sequences = []
    for prompt, said in row_samples(drawn.source, drawn.read(), split, drawn.rng()):
        if prompt is None:
            sequences.append(document(tokenizer.encode, said, bos=bos, eos=eos))
        else:
            turns = [(prompt, said)]
            sequences.append(conversation(tokenizer.encode, turns, bos=bos, learn_prompts=True))
    return sequences


def one_text(drawn: Drawn, tokenizer: Tokenizer, model: MedGemma) -> TrainingSequence:
    """One of a row's sequences; nothing to learn where it has none."""
    if sequences := text_sequences(drawn, tokenizer, model, "train"):
        return random.Random(f"{drawn.place}/one").choice(sequences)
    return TrainingSequence(ids=[model.config.bos_token_id], learn=[False])


def image_sequence(
    turns: list[tuple[str, str]], tokenizer: Tokenizer, model: MedGemma
) -> TrainingSequence:
    """Talk about an image, which stands before it."""
    soft = tokenizer.image_soft * model.config.mm_tokens_per_image
    return conversation(
        tokenizer.encode,
        turns,
        bos=model.config.bos_token_id,
        image=0,
        image_text=f"\n\n{tokenizer.start_of_image}{soft}{tokenizer.end_of_image}\n\n",
    )


def text_validation(
    data: Path, texts: Sources, tokenizer: Tokenizer, model: MedGemma
) -> list[Batch]:
    """Held-out text, packed as in training: files of the split, and the pack's own split rows."""
    held_back = find_shards(part(data, "text"), "val")
    held_back |= {name: texts[name] for name in SPLIT_TEXTS & texts.keys() if name not in held_back}
    ids: list[int] = []
    learn: list[bool] = []
    for name, shards in sorted(held_back.items()):
        count = int(row_counts({name: shards})[name])
        for drawn in islice(Mixture({name: shards}, {name: 1.0}), count):
            for sequence in text_sequences(drawn, tokenizer, model, "val"):
                ids += sequence.ids
                learn += sequence.learn
    rows = range(0, len(ids) - TEXT_LENGTH, TEXT_LENGTH + 1)[:_VALIDATION_ROWS]
    return [
        packed_batch(
            [ids[row : row + TEXT_LENGTH + 1] for row in some],
            [learn[row : row + TEXT_LENGTH + 1] for row in some],
        )
        for some in (rows[i : i + TEXT_ROWS] for i in range(0, len(rows), TEXT_ROWS))
    ]


def caption_rows(
    data: Path, held_out: Collection[str] = (), most: int = _VALIDATION_IMAGES
) -> list[Row]:
    """Rows of held-back images, as many of each source, the first ones.

    Args:
        data: folder of the data.
        held_out: sources that are left out.
        most: how many in all.
    """
    sources = find_shards(part(data, "images"), "val")
    taken = [shards for name, shards in sorted(sources.items()) if name not in held_out]
    return [row for shards in taken for row in islice(all_rows(shards), most // len(taken))]


@torch.no_grad()
def caption_validation(rows: Sequence[Row], tokenizer: Tokenizer, model: MedGemma) -> list[Batch]:
    """Descriptions of images as they are, through the model's tower, which rests.

    Args:
        rows: with images.
        tokenizer: the model's.
        model: reads images.
    """
    assert model.config.vision_config is not None
    side_px = model.config.vision_config.image_size
    device = model.language_model.embed_tokens.weight.device
    batches = []
    for start in range(0, len(rows), _IMAGES_TOGETHER):
        some = rows[start : start + _IMAGES_TOGETHER]
        shown = torch.stack([pixels(image_square(row, side_px), "", None) for row in some])
        told = [
            description(row, random.Random(f"captions/{place}"))
            for place, row in enumerate(some, start=start)
        ]
        patches_NPD = model.vision_tower(shown.to(device))
        batches.append(
            padded_batch(
                [image_sequence([one], tokenizer, model) for one in told],
                pad=model.config.pad_token_id,
                length=model.config.mm_tokens_per_image + IMAGE_TEXT_LENGTH,
                pooled_NTD=model.multi_modal_projector.pooled(patches_NPD).float(),
            )
        )
    return batches
