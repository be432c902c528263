"""MedGemma's logits against transformers', over everything that a prompt can hold.

Prompts are drawn: a letter is a text token, four `I` an image, a dot is padding.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from osler.models.config import SLIDING
from osler.models.kv_cache import KVCache
from osler.models.medgemma import MedGemma
from osler.testing.models import tiny_medgemma, tiny_medgemma_text
from osler.testing.reference import medgemma_pair

TOLERANCE = 1e-4  # of the largest logit

TEXT = ["abcdefg"]
ONE_IMAGE = ["abIIIIcdef"]
TWO_IMAGES = ["abIIIIcdIIIIefg"]
LEFT_PADDED = [".....abIIIIcd", "efIIIIghIIIIi", "...........jk"]
# The window is 8: the image lies across the first edge, and every edge after it cuts through it.
THREE_WINDOWS = ["abcdefIIIIghijklmnopqrst"]
EVERY_PROMPT = [TEXT, ONE_IMAGE, TWO_IMAGES, LEFT_PADDED, THREE_WINDOWS]


def drawn(rows: list[str]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Ids, pixels and padding of drawn prompts."""
    config = tiny_medgemma()
    special = {"I": config.image_token_id, ".": config.pad_token_id}
    ids_BL = torch.tensor([[special.get(sign, ord(sign) - 50) for sign in row] for row in rows])
    images = "".join(rows).count("I") // config.mm_tokens_per_image
    generator = torch.Generator().manual_seed(1)
    pixels_NCSS = torch.rand(images, 3, 56, 56, generator=generator) * 2 - 1 if images else None
    real_BL = torch.tensor([[sign != "." for sign in row] for row in rows])
    return ids_BL, pixels_NCSS, None if bool(real_BL.all()) else real_BL.long()


def difference(ours: Tensor, theirs: Tensor, real_BL: Tensor | None = None) -> float:
    """Largest difference as a share of the largest logit, padding left out."""
    if real_BL is not None:
        ours, theirs = ours[real_BL.bool()], theirs[real_BL.bool()]
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("rows", EVERY_PROMPT, ids=" ".join)
def test_logits_equal_the_reference(rows: list[str]) -> None:
    pair = medgemma_pair(tiny_medgemma())
    ids_BL, pixels, real_BL = drawn(rows)
    ours = pair.ours(ids_BL, pixels_NCSS=pixels, attention_mask_BL=real_BL)
    assert ours.dtype == torch.float32
    assert ours.shape == (*ids_BL.shape, 128)
    assert difference(ours, pair.their_logits(ids_BL, pixels, real_BL), real_BL) <= TOLERANCE


@pytest.mark.parametrize("rows", EVERY_PROMPT, ids=" ".join)
def test_bfloat16_stays_close_to_the_reference(rows: list[str]) -> None:
    pair = medgemma_pair(tiny_medgemma(), torch.bfloat16)
    ids_BL, pixels, real_BL = drawn(rows)
    ours = pair.ours(ids_BL, pixels_NCSS=pixels, attention_mask_BL=real_BL)
    # Four units in the last place of bfloat16; on one machine they are usually equal.
    assert difference(ours, pair.their_logits(ids_BL, pixels, real_BL), real_BL) <= 2**-6


def test_text_only_model_equals_the_reference() -> None:
    pair = medgemma_pair(tiny_medgemma_text())
    ids_BL, _, real_BL = drawn([".......abcdefghijklmnopq", "abcdefghijklmnopqrstuvwx"])
    ours = pair.ours(ids_BL, attention_mask_BL=real_BL)
    assert difference(ours, pair.their_logits(ids_BL, None, real_BL), real_BL) <= TOLERANCE


VARIANTS: dict[str, dict[str, Any]] = {
    "every query its own key": {"num_key_value_heads": 4},
    "one key for all queries": {"num_key_value_heads": 1},
    "the 27B's query scale": {"query_pre_attn_scalar": 21},
    "heads wider than the model": {"head_dim": 32},
    "no rope scaling": {"rope_scaling_factor": 1.0},
    "other rope bases": {"rope_theta": 500.0, "rope_local_base_freq": 30.0},
    "global layers only": {"layer_types": ("full_attention",) * 4},
    "local layers only": {"layer_types": ("sliding_attention",) * 4},
    "window shorter than an image": {"sliding_window": 3},
    "coarse norm": {"rms_norm_eps": 0.1},
}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_equals_the_reference(fields: dict[str, Any]) -> None:
    config = tiny_medgemma()
    pair = medgemma_pair(replace(config, text_config=replace(config.text_config, **fields)))
    ids_BL, pixels, _ = drawn(THREE_WINDOWS)
    ours = pair.ours(ids_BL, pixels_NCSS=pixels)
    assert difference(ours, pair.their_logits(ids_BL, pixels)) <= TOLERANCE


@pytest.mark.parametrize(
    "field",
    [
        {"query_pre_attn_scalar": 21},
        {"rope_scaling_factor": 1.0},
        {"rope_theta": 10_000.0},
        {"rope_local_base_freq": 1_000_000.0},
        {"sliding_window": 9},
        {"layer_types": ("full_attention",) * 4},
        {"rms_norm_eps": 1e-2},
    ],
    ids=str,
)
def test_parity_would_notice_each_number(field: dict[str, Any]) -> None:
    """The prompts are long enough, and the weights wild enough, for every number to matter."""
    config = tiny_medgemma()
    pair = medgemma_pair(config)
    wrong = MedGemma(replace(config, text_config=replace(config.text_config, **field)))
    wrong.load_state_dict(pair.ours.state_dict())
    ids_BL, pixels, _ = drawn(THREE_WINDOWS)
    off = difference(wrong(ids_BL, pixels_NCSS=pixels), pair.their_logits(ids_BL, pixels))
    assert off > 10 * TOLERANCE


@pytest.mark.parametrize("tokens", [1, 16])
def test_other_numbers_of_image_tokens(tokens: int) -> None:
    """16 tokens are an image twice as long as the window; 1 pools the whole grid."""
    pair = medgemma_pair(replace(tiny_medgemma(), mm_tokens_per_image=tokens))
    ids_BL, pixels, _ = drawn(["ab" + "IIII" * 4 + "cdefghijk"])
    assert pixels is not None
    pixels = pixels.repeat(4, 1, 1, 1)[: 16 // tokens]
    definition = pair.their_logits_by_definition(ids_BL, pixels)
    assert difference(pair.ours(ids_BL, pixels_NCSS=pixels), definition) <= TOLERANCE


def test_image_token_beyond_the_vocabulary() -> None:
    """Unpadded checkpoints have 262,144 rows and the image token 262,144."""
    pair = medgemma_pair(replace(tiny_medgemma(), image_token_id=128))
    ids_BL, pixels, _ = drawn(ONE_IMAGE)
    ids_BL[ids_BL == 120] = 128
    ours = pair.ours(ids_BL, pixels_NCSS=pixels)
    assert difference(ours, pair.their_logits(ids_BL, pixels)) <= TOLERANCE


def test_touching_images_stay_apart() -> None:
    """Two images do not see each other forward, even with no text between them.

    transformers 5.23 takes adjacent image tokens for one image. Its own model with the mask of the
    definition agrees with ours.
    """
    pair = medgemma_pair(tiny_medgemma())
    ids_BL, pixels, _ = drawn(["abIIIIIIIIcdef"])
    assert pixels is not None
    ours = pair.ours(ids_BL, pixels_NCSS=pixels)
    assert difference(ours, pair.their_logits_by_definition(ids_BL, pixels)) <= TOLERANCE
    assert difference(ours, pair.their_logits(ids_BL, pixels)) > 0.01, "transformers is right now"


@pytest.mark.parametrize("rows", [ONE_IMAGE, TWO_IMAGES, THREE_WINDOWS], ids=" ".join)
def test_reference_follows_the_definition_where_text_stands_between(rows: list[str]) -> None:
    pair = medgemma_pair(tiny_medgemma())
    ids_BL, pixels, _ = drawn(rows)
    assert pixels is not None
    theirs = pair.their_logits(ids_BL, pixels)
    assert difference(theirs, pair.their_logits_by_definition(ids_BL, pixels)) <= TOLERANCE


CHUNKS = [
    [10] + [1] * 14,  # a prompt with its image, then token by token
    [1] * 6 + [4] + [1] * 14,
    [3, 8, 5, 1, 7],
    [12, 12],
    [5, 19],  # the second chunk is longer than the window
    [22, 1, 1],
    [24],
]


def cached(
    model: MedGemma,
    chunks: list[int],
    ids_BL: Tensor,
    pixels: Tensor,
    real_BL: Tensor | None = None,
) -> Tensor:
    """Logits of all positions, a chunk at a time; images come with the chunk that holds them."""
    text = model.config.text_config
    cache = KVCache(text, ids_BL.shape[0])
    is_image_BL = ids_BL == model.config.image_token_id
    # Which image each token is of, counted in reading order of the whole batch.
    image_BL = ((is_image_BL.flatten().cumsum(dim=0) - 1) // 4).view_as(ids_BL)
    parts = []
    for ids, is_image, image, real in zip(
        ids_BL.split(chunks, dim=1),
        is_image_BL.split(chunks, dim=1),
        image_BL.split(chunks, dim=1),
        (torch.ones_like(ids_BL) if real_BL is None else real_BL).split(chunks, dim=1),
        strict=True,
    ):
        chunk_pixels = pixels[image[is_image][::4]] if is_image.any() else None
        parts.append(model(ids, pixels_NCSS=chunk_pixels, attention_mask_BL=real, cache=cache))
        for layer, kind in zip(cache.layers, text.layer_types, strict=True):
            if kind == SLIDING:
                assert layer.keys_BKTH.shape[2] <= text.sliding_window
    assert cache.length == ids_BL.shape[1]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_cached_decoding_equals_uncached_at_every_step(chunks: list[int]) -> None:
    pair = medgemma_pair(tiny_medgemma())
    ids_BL, pixels, _ = drawn(THREE_WINDOWS)
    assert pixels is not None
    stepwise = cached(pair.ours, chunks, ids_BL, pixels)
    assert difference(stepwise, pair.ours(ids_BL, pixels_NCSS=pixels)) <= TOLERANCE
    assert difference(stepwise, pair.their_logits(ids_BL, pixels)) <= TOLERANCE


@pytest.mark.parametrize("chunks", [[10] + [1] * 4 + [4] + [1] * 8, [4, 6, 2, 9, 1, 1, 3]], ids=str)
def test_cached_decoding_of_a_padded_batch(chunks: list[int]) -> None:
    pair = medgemma_pair(tiny_medgemma())
    rows = [
        "....abIIIIcdefIIIIghijklmn",
        "IIIIopIIIIqrstuvwxyzabcdef",
        "......................ghij",
    ]
    ids_BL, pixels, real_BL = drawn(rows)
    assert pixels is not None
    stepwise = cached(pair.ours, chunks, ids_BL, pixels, real_BL)
    whole = pair.ours(ids_BL, pixels_NCSS=pixels, attention_mask_BL=real_BL)
    assert difference(stepwise, whole, real_BL) <= TOLERANCE
    assert difference(stepwise, pair.their_logits(ids_BL, pixels, real_BL), real_BL) <= TOLERANCE


def test_a_row_gives_the_same_alone_and_in_a_padded_batch() -> None:
    model = medgemma_pair(tiny_medgemma()).ours
    ids_BL, pixels, real_BL = drawn(LEFT_PADDED)
    assert pixels is not None
    batch = model(ids_BL, pixels_NCSS=pixels, attention_mask_BL=real_BL)
    alone_ids, _, _ = drawn(["abIIIIcd"])
    alone = model(alone_ids, pixels_NCSS=pixels[:1])
    assert difference(batch[:1, 5:], alone) <= TOLERANCE


def test_rows_that_have_ended_can_be_dropped() -> None:
    model = medgemma_pair(tiny_medgemma()).ours
    ids_BL, pixels, real_BL = drawn(LEFT_PADDED)
    whole = model(ids_BL, pixels_NCSS=pixels, attention_mask_BL=real_BL)
    cache = KVCache(model.config.text_config, 3)
    assert real_BL is not None
    model(ids_BL[:, :-1], pixels_NCSS=pixels, attention_mask_BL=real_BL[:, :-1], cache=cache)
    kept = torch.tensor([2, 0])
    cache.keep_rows(kept)
    assert difference(model(ids_BL[kept, -1:], cache=cache), whole[kept, -1:]) <= TOLERANCE


def test_last_only_and_embedded_images_change_nothing() -> None:
    model = medgemma_pair(tiny_medgemma()).ours
    ids_BL, pixels, _ = drawn(TWO_IMAGES)
    assert pixels is not None
    soft_NTD = model.embed_images(pixels)
    assert soft_NTD.shape == (2, 4, 64)
    last = model(ids_BL, soft_NTD=soft_NTD, last_only=True)
    assert last.shape == (1, 1, 128)
    assert difference(last, model(ids_BL, pixels_NCSS=pixels)[:, -1:]) <= TOLERANCE


def test_images_and_image_tokens_must_match() -> None:
    model = medgemma_pair(tiny_medgemma()).ours
    ids_BL, pixels, _ = drawn(TWO_IMAGES)
    assert pixels is not None
    with pytest.raises(ValueError, match="8 image tokens for 4 image embeddings"):
        model(ids_BL, pixels_NCSS=pixels[:1])
    with pytest.raises(ValueError, match="8 image tokens for 0 image embeddings"):
        model(ids_BL)


def test_a_text_model_takes_no_images() -> None:
    model = medgemma_pair(tiny_medgemma_text()).ours
    with pytest.raises(ValueError, match="text only"):
        model.embed_images(torch.zeros(1, 3, 56, 56))
