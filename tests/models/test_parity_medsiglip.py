"""MedSigLIP's embeddings, logits and loss against transformers'."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from osler.models.config import MedSiglipConfig
from osler.models.medsiglip import sigmoid_loss
from osler.testing.models import tiny_medsiglip
from osler.testing.reference import MedSiglipPair, medsiglip_pair

TOLERANCE = 1e-4  # of the largest value


def batch(config: MedSiglipConfig) -> tuple[Tensor, Tensor]:
    """Three images and three texts, padded on the right as the tokenizer does."""
    generator = torch.Generator().manual_seed(2)
    side = config.vision_config.image_size
    pixels = torch.rand(3, 3, side, side, generator=generator) * 2 - 1
    ids = torch.randint(2, 100, (3, 64), generator=generator)
    for row, length in enumerate((4, 20, 64)):
        ids[row, length:] = config.text_config.pad_token_id
    return pixels, ids


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


@pytest.fixture(scope="module")
def pair() -> MedSiglipPair:
    return medsiglip_pair(tiny_medsiglip())


def test_embeddings_logits_and_loss_equal_the_reference(pair: MedSiglipPair) -> None:
    pixels, ids = batch(pair.ours.config)
    theirs = pair.theirs(input_ids=ids, pixel_values=pixels, return_loss=True)
    images, texts = pair.ours.embed_images(pixels), pair.ours.embed_texts(ids)
    assert relative(images, theirs.image_embeds) <= TOLERANCE
    assert relative(texts, theirs.text_embeds) <= TOLERANCE
    assert images.norm(dim=-1).sub(1).abs().max() <= 1e-6
    assert texts.norm(dim=-1).sub(1).abs().max() <= 1e-6
    logits = pair.ours(pixels, ids)
    assert relative(logits, theirs.logits_per_image) <= TOLERANCE
    assert relative(sigmoid_loss(logits), theirs.loss) <= TOLERANCE


def test_inputs_matter(pair: MedSiglipPair) -> None:
    """Random weights do not make all embeddings alike, or parity would say nothing."""
    pixels, ids = batch(pair.ours.config)
    for embeddings in (pair.ours.embed_images(pixels), pair.ours.embed_texts(ids)):
        cosine = embeddings @ embeddings.T
        assert cosine[~torch.eye(3, dtype=torch.bool)].max() < 0.99


def test_bfloat16_stays_close_to_the_reference() -> None:
    pair = medsiglip_pair(tiny_medsiglip(), torch.bfloat16)
    pixels, ids = batch(pair.ours.config)
    theirs = pair.theirs(input_ids=ids, pixel_values=pixels.bfloat16())
    assert relative(pair.ours.embed_images(pixels), theirs.image_embeds) <= 2**-6
    assert relative(pair.ours.embed_texts(ids), theirs.text_embeds) <= 2**-6


def test_norm_epsilon_of_each_tower_is_its_own() -> None:
    config = tiny_medsiglip()
    config = replace(
        config,
        text_config=replace(config.text_config, layer_norm_eps=0.1),
        vision_config=replace(config.vision_config, layer_norm_eps=0.2),
    )
    pair = medsiglip_pair(config)
    pixels, ids = batch(config)
    theirs = pair.theirs(input_ids=ids, pixel_values=pixels)
    assert relative(pair.ours.embed_images(pixels), theirs.image_embeds) <= TOLERANCE
    assert relative(pair.ours.embed_texts(ids), theirs.text_embeds) <= TOLERANCE


def test_loss_is_the_sum_over_pairs_divided_by_images() -> None:
    """By hand, from equation 1 of the SigLIP paper, with two matches in one row."""
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    match = torch.tensor([[True, False, True], [False, True, False]])
    total = 0.0
    for row in range(2):
        for column in range(3):
            sign = 1.0 if match[row, column] else -1.0
            total -= float(torch.log(torch.sigmoid(sign * logits[row, column])))
    assert sigmoid_loss(logits, match).item() == pytest.approx(total / 2, abs=1e-6)
