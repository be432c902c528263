"""The mask against its drawing and against its definition."""

import re

import pytest
import torch

from osler.models import attention_mask as module
from osler.models.attention_mask import NO_IMAGE, attention_mask, image_blocks
from osler.models.config import FULL, SLIDING
from osler.testing.models import tiny_medgemma
from osler.testing.reference import masks_by_definition

ALL_REAL = torch.ones(1, 7, dtype=torch.bool)


def test_the_drawing_is_the_matrix() -> None:
    """Both pictures in the module's docstring, `a b I I I c d` with a window of 4."""
    assert module.__doc__ is not None
    rows = re.findall(r"^ {8}([abIcd])( .{14}) {4,5}\1( .*)$", module.__doc__, re.MULTILINE)
    assert "".join(name for name, _, _ in rows) == "abIIIcd"
    block = image_blocks(torch.tensor([[sign == "I" for sign in "abIIIcd"]]), 3)
    place = torch.arange(7)
    for column, window in ((1, None), (2, 4)):
        drawn = [[row[column].ljust(14)[1 + 2 * key] == "x" for key in range(7)] for row in rows]
        mask = attention_mask(place, place, ALL_REAL, block, block, window)
        assert mask.shape == (1, 1, 7, 7)
        assert mask[0, 0].tolist() == drawn


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_definition(seed: int) -> None:
    config = tiny_medgemma()
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while len(ids) < 30:
        image = bool(torch.rand((), generator=generator) < 0.4)
        ids += [config.image_token_id] * 4 if image else [5]
    ids_BL = torch.tensor([ids])
    length = ids_BL.shape[1]
    block = image_blocks(ids_BL == config.image_token_id, 4)
    real = torch.ones_like(ids_BL, dtype=torch.bool)
    order = torch.randperm(length, generator=generator)  # keys of a ring stand in any order
    for kind, window in ((SLIDING, 8), (FULL, None)):
        mask = attention_mask(
            torch.arange(length), order, real[:, order], block, block[:, order], window
        )
        assert mask.equal(masks_by_definition(config, ids_BL)[kind][..., order])


def test_padding_is_not_seen_but_sees_itself() -> None:
    real = torch.tensor([[False, False, True, True, True, True, True]])
    place = torch.arange(7)
    block = torch.full((1, 7), NO_IMAGE)
    mask = attention_mask(place, place, real, block, block, 3)[0, 0]
    assert mask[0].tolist() == [True] + [False] * 6
    assert mask[3].tolist() == [False, False, True, True, False, False, False]
    assert mask.any(dim=-1).all()


def test_images_of_each_row_are_numbered_from_zero() -> None:
    is_image = torch.tensor([[True, True, False, True, True], [False, False, False, True, True]])
    assert image_blocks(is_image, 2).tolist() == [[0, 0, -1, 1, 1], [-1, -1, -1, 0, 0]]
