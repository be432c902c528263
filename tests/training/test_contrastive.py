"""Phase 1 on pairs: images and captions, of which several may be true of one image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osler.models.medsiglip import MedSiglip, sigmoid_loss
from osler.testing.models import tiny_medsiglip
from osler.training.contrastive import Pair, PairBatch, PairTask, initialise, pair_batch
from osler.training.loop import LoopConfig, train


def tokenize(texts: Sequence[str]) -> Tensor:
    """Each word a number; enough to tell captions apart."""
    rows = [[2 + sum(map(ord, word)) % 97 for word in text.split()] for text in texts]
    return torch.tensor([(row + [1] * 64)[:64] for row in rows])


def stripes(count: int) -> Tensor:
    """Images that differ in how wide and how bright their stripes are."""
    row = torch.arange(56)
    widths = [row // (2 + 6 * i) % 2 * (80 + 80 * i) for i in range(count)]
    return torch.stack(widths)[:, None, :, None].expand(-1, 3, -1, 56).to(torch.uint8)


def pairs() -> list[Pair]:
    """Three kinds of images, two of each, one caption in common for two of the kinds."""
    squares = stripes(3).float() / 127.5 - 1
    told = [
        ("narrow stripes", "stripes/narrow", "stripes/narrow"),
        ("stripes", "stripes", "stripes/wide"),
        ("hardly any", "few", "few"),
    ]
    return [
        Pair(pixels_CSS=squares[i], caption=text, caption_key=key, image_key=image)
        for i, (text, key, image) in enumerate(told)
    ] * 2


class Same:
    def __init__(self, batch: PairBatch) -> None:
        self.batch = batch

    def __next__(self) -> PairBatch:
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def tiny_encoders() -> MedSiglip:
    torch.manual_seed(0)
    model = MedSiglip(tiny_medsiglip())
    initialise(model, stripes(3))
    return model


def test_the_loss_counts_every_true_pair() -> None:
    batch, model = pair_batch(pairs(), tokenize), tiny_encoders()
    true = torch.eye(3, dtype=torch.bool)
    true[0, 1] = True  # narrow stripes are stripes; stripes need not be narrow
    with torch.inference_mode():
        loss, _ = PairTask(model, Same(batch)).loss(batch)
        wanted = sigmoid_loss(model(batch.pixels_BCSS, batch.ids_BL), true.repeat(2, 2))
    torch.testing.assert_close(loss, wanted)


def test_training_tells_true_pairs_from_others(tmp_path: Path) -> None:
    batch, model = pair_batch(pairs(), tokenize), tiny_encoders()
    task = PairTask(model, Same(batch), [batch])
    with torch.no_grad():
        before = task.evaluate()["val_loss"]
    config = LoopConfig(steps=30, learning_rate=2e-3, warmup_steps=3)
    after = train(task, config, tmp_path).evaluation["val_loss"]
    assert after < 0.5 * before
