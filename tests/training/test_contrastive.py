"""Phase 1 on a tiny encoder pair."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from osler.models.medsiglip import MedSiglip
from osler.testing.models import tiny_medsiglip
from osler.testing.packs import one_of_each_class
from osler.training.captions import class_key
from osler.training.contrastive import (
    ContrastiveConfig,
    Lessons,
    VariedImages,
    initialise,
    train_contrastive,
)


def tokenize(texts: Sequence[str]) -> Tensor:
    """Each word a number; enough to tell captions apart."""
    rows = [[2 + sum(map(ord, word)) % 97 for word in text.split()] for text in texts]
    return torch.tensor([(row + [1] * 64)[:64] for row in rows])


def stripes(count: int) -> Tensor:
    """Images that differ in how wide and how bright their stripes are."""
    row = torch.arange(56)
    widths = [row // (2 + 6 * i) % 2 * (80 + 80 * i) for i in range(count)]
    return torch.stack(widths)[:, None, :, None].expand(-1, 3, -1, 56).to(torch.uint8)


def test_a_caption_is_matched_with_every_image_that_it_is_true_of() -> None:
    items = [item for item in one_of_each_class() if item.set_name == "cxr_kermany"] * 2
    lessons = Lessons(items, random.Random(0))
    texts, match = lessons.captions(range(len(items)), 8)
    assert len(texts) == 8
    assert match.shape == (len(items), 8)
    # Two records a class: a caption true of one is true of the other, and none is true of nothing.
    assert torch.equal(match[:3], match[3:])
    assert match.any(dim=0).all()


def test_rare_classes_come_more_often_and_none_is_left_out() -> None:
    normal, bacterial, *_ = one_of_each_class()
    items = [normal] * 1600 + [bacterial] * 25
    lessons = Lessons(items, random.Random(0), common_class=400, common_set=1)
    drawn = lessons.images(1600 + 4 * 25)
    rare = sum(index >= 1600 for index in drawn)
    assert rare == 4 * 25
    assert set(drawn) == set(range(len(items)))


def test_a_small_set_comes_more_often() -> None:
    by_set = {item.set_name: item for item in one_of_each_class()}
    items = [by_set["cxr_kermany"]] * 400 + [by_set["us_busi"]] * 25
    lessons = Lessons(items, random.Random(0), common_class=1, common_set=400)
    assert sum(index >= 400 for index in lessons.images(400 + 4 * 25)) == 4 * 25


def test_training_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    by_set = {item.set_name: item for item in one_of_each_class()}
    items = [by_set[name] for name in ("cxr_kermany", "mri_brain_tumor", "us_busi")]
    squares = stripes(3)
    config = ContrastiveConfig(
        steps=160, batch_size=12, texts=12, learning_rate=2e-3, warmup_steps=3
    )

    def separation(model: MedSiglip) -> float:
        # How far the scores of true pairs lie above those of the others.
        texts, match = Lessons(items, random.Random(1)).captions(range(3), 12)
        with torch.inference_mode():
            logits = model(squares.float() / 127.5 - 1, tokenize(texts))
        return float(logits[match].mean() - logits[~match].mean())

    torch.manual_seed(0)
    model = MedSiglip(tiny_medsiglip())
    initialise(model, squares)
    before = separation(model)
    state = tmp_path / "state.pt"
    patches_of = VariedImages(model.vision_model, items, squares)
    train_contrastive(model, items, patches_of, tokenize, config, state)
    assert separation(model) > before + 2

    again = MedSiglip(tiny_medsiglip())
    longer = replace(config, steps=161)
    patches_of = VariedImages(again.vision_model, items, squares)
    train_contrastive(again, items, patches_of, tokenize, longer, state)
    change = max(
        float((one - other).detach().abs().max())
        for one, other in zip(again.parameters(), model.parameters(), strict=True)
    )
    assert 0 < change < 0.01


def test_the_blocks_see_only_the_kept_patches() -> None:
    items = one_of_each_class()[:2]
    tower = MedSiglip(tiny_medsiglip()).vision_model
    whole, some = (VariedImages(tower, items, stripes(2), kept_patches=kept) for kept in (None, 5))
    grid = tower.embeddings.position_embedding.num_embeddings
    assert whole([0, 1]).shape[:2] == (2, grid)
    assert some([0, 1]).shape[:2] == (2, 5)
    assert not torch.equal(some([0]), some([0])), "the same patches twice"


def test_the_classes_are_those_of_the_labels() -> None:
    items = one_of_each_class()
    lessons = Lessons(items, random.Random(0))
    labelled = {class_key(item) for item in items if item.set_name == "derm_ham10000"}
    assert labelled <= set(lessons.classes)
    assert len(lessons.labels) == len(items)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_draws_the_same_lessons(seed: int) -> None:
    items = one_of_each_class()
    one, other = (Lessons(items, random.Random(seed)) for _ in range(2))
    assert one.images(20) == other.images(20)
    assert one.captions(range(5), 30)[0] == other.captions(range(5), 30)[0]
