"""MedGemma's logits against transformers', over everything that a prompt can hold.

Prompts are drawn: a letter is a text token, four `I` an image, a dot is padding.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from osler.models.config import FULL, SLIDING
from osler.models.kv_cache import KVCache, PageStore, Span
from osler.models.medgemma import MedGemma
from osler.models.pages import PAGE_TOKENS
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


# More than two pages of 64 positions; images lie across the page's edge and the window's.
LONG = ["abIIIIcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefIIIIIIIIgh" * 2]
CHUNKS = [
    [62, 4, 4, *[1] * 4, 4, *[1] * 56, 8, 1, 1],
    [*[1] * 2, 4, *[1] * 56, 8, *[1] * 4, 4, 56, 10],
    [2, 60, 8, 1, 73],
    [62, 12, 70],
    [58, 86],
    [142, 1, 1],
    [144],
]


class Sequence:
    """A sequence that is read chunk by chunk; of its pages only those that it must keep."""

    def __init__(self, model: MedGemma, store: PageStore, pages: list[int]) -> None:
        self.model, self.store, self.pages = model, store, pages
        self.read = 0

    def span(self, length: int) -> Span:
        """The next positions; local pages behind the window are taken away."""
        local = list(self.pages)
        gone = max(0, self.read - self.store.config.sliding_window + 1) // PAGE_TOKENS
        for place in range(gone):
            self.store.pages[SLIDING][local[place]] = torch.nan
            local[place] = -1
        span = Span(start=self.read, length=length, tables={FULL: self.pages, SLIDING: local})
        self.read += length
        return span


def new_store(model: MedGemma, pages: int) -> PageStore:
    """Pages full of NaN: what no one wrote must not be looked at."""
    store = PageStore(model.config.text_config, {FULL: pages, SLIDING: pages})
    for pool in store.pages.values():
        pool.fill_(torch.nan)
    return store


def read(
    model: MedGemma, sequences: list[Sequence], rows: list[Tensor], pixels: Tensor | None
) -> list[Tensor]:
    """Logits of the next positions of several sequences, read in one call."""
    cache = KVCache(
        sequences[0].store, [s.span(len(r)) for s, r in zip(sequences, rows, strict=True)]
    )
    logits = model(torch.cat(rows)[None], pixels_NCSS=pixels, cache=cache)
    return list(logits[0].split([len(row) for row in rows]))


def images_of(model: MedGemma, ids_BL: Tensor, pixels: Tensor, start: int, end: int) -> Tensor:
    """The images that stand in a part of the first row."""
    is_image = ids_BL[0] == model.config.image_token_id
    first, last = int(is_image[:start].sum()) // 4, int(is_image[:end].sum()) // 4
    return pixels[first:last]


def cached(model: MedGemma, chunks: list[int], ids_BL: Tensor, pixels: Tensor) -> Tensor:
    """Logits of all positions, a chunk at a time; images come with the chunk that holds them."""
    sequence = Sequence(model, new_store(model, 5), [4, 0, 3])
    parts, start = [], 0
    for chunk in chunks:
        part = images_of(model, ids_BL, pixels, start, start + chunk)
        parts += read(model, [sequence], [ids_BL[0, start : start + chunk]], part)
        start += chunk
    return torch.cat(parts)[None]


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_cached_decoding_equals_uncached_at_every_step(chunks: list[int]) -> None:
    pair = medgemma_pair(tiny_medgemma())
    ids_BL, pixels, _ = drawn(LONG)
    assert pixels is not None
    stepwise = cached(pair.ours, chunks, ids_BL, pixels)
    assert difference(stepwise, pair.ours(ids_BL, pixels_NCSS=pixels)) <= TOLERANCE
    definition = pair.their_logits_by_definition(ids_BL, pixels)
    assert difference(stepwise, definition) <= TOLERANCE


def test_sequences_of_other_lengths_are_read_together() -> None:
    """Chunks in one call: of prompts, of single tokens, with and without images."""
    model = medgemma_pair(tiny_medgemma()).ours
    drawings = [LONG[0], "abIIIIcdefghijklmnopqrstuvwxyz", "xyz"]
    ids = [drawn([drawing])[0][0] for drawing in drawings]
    _, pixels, _ = drawn(drawings[:1])
    assert pixels is not None
    images = [pixels, pixels[3:4], pixels[:0]]
    alone = [model(i[None], pixels_NCSS=p) for i, p in zip(ids, images, strict=True)]
    store = new_store(model, 6)
    sequences = [Sequence(model, store, pages) for pages in ([3, 1, 5], [0], [4])]
    cuts = [[20, 70, 71, 144], [1, 2, 8, 30], [0, 1, 2, 3]]
    got: list[list[Tensor]] = [[], [], []]
    starts = [0, 0, 0]
    for step in range(4):
        taken = [row for row in range(3) if cuts[row][step] > starts[row]]
        parts = [slice(starts[row], cuts[row][step]) for row in taken]
        shown = [
            images_of(model, ids[row][None], images[row], part.start, part.stop)
            for row, part in zip(taken, parts, strict=True)
        ]
        new = [ids[row][part] for row, part in zip(taken, parts, strict=True)]
        logits = read(model, [sequences[row] for row in taken], new, torch.cat(shown))
        for row, part, scores in zip(taken, parts, logits, strict=True):
            got[row].append(scores)
            starts[row] = part.stop
    for row in range(3):
        assert difference(torch.cat(got[row])[None], alone[row]) <= TOLERANCE


def test_a_draft_that_was_not_taken_is_written_over() -> None:
    model = medgemma_pair(tiny_medgemma()).ours
    ids_BL, pixels, _ = drawn(["abIIIIcdefghijklmnop"])
    sequence = Sequence(model, new_store(model, 1), [0])
    read(model, [sequence], [ids_BL[0, :12]], pixels)
    read(model, [sequence], [torch.tensor([5, 6, 7])], None)
    sequence.read -= 3
    (rest,) = read(model, [sequence], [ids_BL[0, 12:]], None)
    assert difference(rest[None], model(ids_BL, pixels_NCSS=pixels)[:, 12:]) <= TOLERANCE


def test_copied_pages_hold_the_same() -> None:
    model = medgemma_pair(tiny_medgemma()).ours
    ids_BL, pixels, _ = drawn(["abIIIIcdefghijklmnop"])
    store = new_store(model, 2)
    sequence = Sequence(model, store, [0])
    read(model, [sequence], [ids_BL[0, :12]], pixels)
    for kind in (FULL, SLIDING):
        store.copy(kind, [(0, 1)])
        store.pages[kind][0] = torch.nan
    sequence.pages = [1]
    (rest,) = read(model, [sequence], [ids_BL[0, 12:]], None)
    assert difference(rest[None], model(ids_BL, pixels_NCSS=pixels)[:, 12:]) <= TOLERANCE


def test_a_row_gives_the_same_alone_and_in_a_padded_batch() -> None:
    model = medgemma_pair(tiny_medgemma()).ours
    ids_BL, pixels, real_BL = drawn(LEFT_PADDED)
    assert pixels is not None
    batch = model(ids_BL, pixels_NCSS=pixels, attention_mask_BL=real_BL)
    alone_ids, _, _ = drawn(["abIIIIcd"])
    alone = model(alone_ids, pixels_NCSS=pixels[:1])
    assert difference(batch[:1, 5:], alone) <= TOLERANCE


def test_embedded_images_change_nothing() -> None:
    model = medgemma_pair(tiny_medgemma()).ours
    ids_BL, pixels, _ = drawn(TWO_IMAGES)
    assert pixels is not None
    soft_NTD = model.embed_images(pixels)
    assert soft_NTD.shape == (2, 4, 64)
    embedded = model(ids_BL, soft_NTD=soft_NTD)
    assert difference(embedded, model(ids_BL, pixels_NCSS=pixels)) <= TOLERANCE


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
