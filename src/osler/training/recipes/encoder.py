"""Encoder enhancement: a MedSigLIP learns from images with captions.

    osler train encoder --data DIR --out DIR

Sources are tars, folders or Parquet files of images with a text each, mixed by weight (the paper
has 2 % of medical pairs among general ones); those of the data pack get captions from their labels.
With another size of image the position embeddings are resampled, so that one set of weights serves
two resolutions (896 and 448 in the paper).
"""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from osler.models.checkpoint import load_medsiglip
from osler.preprocess.siglip_tokenizer import SiglipTokenizer
from osler.tasks.locate import locate
from osler.training.contrastive import Pair, PairBatch, PairTask, Tokenize, pair_batch
from osler.training.image_rows import caption, image_square, pixels
from osler.training.loop import train
from osler.training.recipes.job import COMMON, Job, in_own_memory, part, save_result
from osler.training.resolution import at_resolution
from osler.training.streams.batches import Ahead, SampleBatches
from osler.training.streams.mixture import Drawn, Mixture, row_counts
from osler.training.streams.shards import find_shards

LOOP = replace(COMMON, learning_rate=1e-4, weight_decay=0.02, evaluate_every=250)
BATCH_SIZE = 64
_VALIDATION_ROWS = 512


def encoder(job: Job) -> Path:
    """Train; the model is left in `model` of the run's folder."""
    folder = locate(job.model or "nano", "medsiglip")
    model = in_own_memory(load_medsiglip(folder, dtype=torch.float32))
    if job.image_size is not None:
        model = at_resolution(model, job.image_size)
    tokenize = caption_tokenizer(folder, model.config.text_config.max_position_embeddings)
    side_px = model.config.vision_config.image_size
    config = job.loop(LOOP)
    batch_size = job.batch_size or BATCH_SIZE
    data = part(job.data, "images")
    sources = find_shards(data)

    def pair(drawn: Drawn) -> Pair:
        return make_pair(drawn, side_px, varied=True)

    batches = SampleBatches(
        Mixture(sources, job.weights or None, config.seed),
        pair,
        lambda pairs: pair_batch(pairs, tokenize),
        batch_size,
        job.ranks,
    )
    task = PairTask(model, Ahead(batches), validation_batches(data, side_px, tokenize, batch_size))
    about = job.about("encoder", sources)
    train(task, config, job.out, resume=job.resume, about=about)
    save_result(model, job.out / "model", like=folder)
    return job.out / "model"


def make_pair(drawn: Drawn, side_px: int, *, varied: bool) -> Pair:
    """Read an image with a caption."""
    row, rng = drawn.read(), drawn.rng()
    square = image_square(row, side_px)
    text, caption_key, image_key = caption(row, rng)
    return Pair(
        pixels_CSS=pixels(square, drawn.source, rng if varied else None),
        caption=text,
        caption_key=caption_key,
        image_key=image_key,
    )


def validation_batches(
    data: Path, side_px: int, tokenize: Tokenize, batch_size: int
) -> list[PairBatch]:
    """Rows of the sources that are held back, mixed by their rows, as they are."""
    held_back = find_shards(data, "val")
    if not held_back:
        return []
    rows = min(_VALIDATION_ROWS, int(sum(row_counts(held_back).values())))
    drawn = islice(Mixture(held_back), rows // batch_size * batch_size)
    pairs = [make_pair(row, side_px, varied=False) for row in drawn]
    return [
        pair_batch(pairs[start : start + batch_size], tokenize)
        for start in range(0, len(pairs), batch_size)
    ]


def caption_tokenizer(folder: Path, length: int) -> Tokenize:
    """Captions to ids."""
    tokenizer = SiglipTokenizer.from_folder(folder, length)
    return lambda texts: torch.tensor([tokenizer.encode(text) for text in texts])
