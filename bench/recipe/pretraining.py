"""Phase 2: how well the decoder foretells text and captions, before and after each of its parts."""

import torch

from bench.recipe.figures import loss, loss_change
from bench.recipe.losses import sequence_losses
from bench.recipe.record import Record, Series, curves, proof, table
from bench.recipe.setting import Setting, image_id
from osler.models.checkpoint import load_medgemma
from osler.models.medgemma import MedGemma
from osler.preprocess.tokenizer import Tokenizer
from osler.training.decoder import initialise
from osler.training.image_rows import packed
from osler.training.recipes.pretrain import caption_rows, caption_validation, text_validation
from osler.training.run_log import read_metrics
from osler.training.streams.shards import find_shards

RANDOM, TEXT, IMAGES = "random weights", "after text", "after images"


def prove(setting: Setting) -> Record:
    """Measure the run's decoders on the same text and the same captions."""
    folder = setting.phase("images")
    tokenizer = Tokenizer.from_folder(folder)
    last = load_medgemma(folder)
    torch.manual_seed(0)
    untrained = MedGemma(last.config)
    initialise(untrained)
    models = {RANDOM: untrained, TEXT: load_medgemma(setting.phase("text")), IMAGES: last}
    texts = text_validation(setting.pack, find_shards(setting.pack / "text"), tokenizer, last)
    rows = caption_rows(setting.pack, most=setting.few(1600, 16))
    # Through the last model's tower for all: that of the text phase has not learnt to see.
    captions = caption_validation(rows, tokenizer, last)
    items = [item for row in rows if (item := packed(row)) is not None]
    figures = []
    for name, batches, groups in (
        ("text", texts, [(place,) for place in range(sum(len(b.ids_BL) for b in texts))]),
        ("captions", captions, [image_id(item) for item in items]),
    ):
        losses = {
            by: sequence_losses(model, batches, f"{name}, {by}") for by, model in models.items()
        }
        figures += [loss(name, of_one, groups, by) for by, of_one in losses.items()]
        figures += [
            loss_change(name, losses[before], losses[after], groups, says)
            for before, after, says in (
                (RANDOM, TEXT, "by the text phase"),
                (TEXT, IMAGES, "by the images phase"),
            )
        ]
    return proof(
        tables=[
            table(
                "Loss on held-back text and captions",
                "Nats a token; less is better, and a change below zero is a gain. n: windows of "
                "256 tokens of text, or images. Text after the images phase is what learning to "
                "speak of images costs.",
                figures,
            )
        ],
        plots=[
            curves(
                "pretraining.png",
                "Loss on held-back text and captions while the decoder learns",
                "step",
                "loss, nats a token",
                {
                    "it reads": _while_learning(setting, "text"),
                    "it learns to speak of images": _while_learning(setting, "images"),
                },
            )
        ],
        settings={"images with captions": len(items)},
    )


def _while_learning(setting: Setting, phase: str) -> Series:
    lines = [line for line in read_metrics(setting.run / phase) if "evaluation" in line]
    series = {
        says: [
            (line["step"], line["evaluation"][name], 0.0)
            for line in lines
            if name in line["evaluation"]
        ]
        for name, says in (("val_loss", "text"), ("val_loss_captions", "captions"))
    }
    return {says: of_one for says, of_one in series.items() if of_one}
