"""The native decoder's scores against the torch model's, over everything that a prompt can hold."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from osler.models.config import MedGemmaConfig
from osler.models.medgemma import MedGemma
from osler.native.decoder import Decoder
from osler.native.formats import Matrix
from osler.native.packing import Packer
from osler.testing.models import tiny_medgemma
from osler.testing.quantised import pack_decoder, packed_medgemma
from tests.native.decoders import (
    ONE_IMAGE,
    TEXT,
    THREE_WINDOWS,
    TWO_IMAGES,
    TWO_PAGES,
    decoder,
    difference,
    drawn,
    expected,
    model,
    native,
    reader,
    soft_rows,
    whole,
)

PROMPTS = [TEXT, ONE_IMAGE, TWO_IMAGES, THREE_WINDOWS, TWO_PAGES]
# Of the largest score: eight units in the last place of bf16.
BF16_TOLERANCE = 2**-5


def off_in_bf16(made: MedGemma, ids: list[int]) -> float:
    """How far torch in bf16 is from torch in float32, or the tolerance where that is more."""
    rounded = expected(model(made.config).bfloat16(), ids, soft_rows(ids, made).bfloat16())
    return max(difference(rounded, expected(made, ids)), BF16_TOLERANCE)


@pytest.mark.parametrize("row", PROMPTS)
def test_bf16_is_no_further_from_float32_than_torch_in_bf16(row: str) -> None:
    made, ids = model(tiny_medgemma()), drawn(row)
    scores = whole(decoder(made), made, ids)
    assert scores.dtype == torch.float32
    assert scores.shape == (len(row), 128)
    assert difference(scores, expected(made, ids)) <= off_in_bf16(made, ids)


VARIANTS: dict[str, dict[str, Any]] = {
    "every query its own key": {"num_key_value_heads": 4},
    "one key for all queries": {"num_key_value_heads": 1},
    "the 27B's query scale": {"query_pre_attn_scalar": 21},
    "heads wider than the model": {"head_dim": 32},
    "wide heads": {"head_dim": 256, "query_pre_attn_scalar": 256},
    "heads of an odd number of pairs": {"head_dim": 18},
    "no rope scaling": {"rope_scaling_factor": 1.0},
    "other rope bases": {"rope_theta": 500.0, "rope_local_base_freq": 30.0},
    "global layers only": {"layer_types": ("full_attention",) * 4},
    "local layers only": {"layer_types": ("sliding_attention",) * 4},
    "the last layer global": {"layer_types": ("sliding_attention",) * 3 + ("full_attention",)},
    "window shorter than an image": {"sliding_window": 3},
    "coarse norm": {"rms_norm_eps": 0.1},
    "sizes that are no multiples of 16": {"hidden_size": 72, "intermediate_size": 88},
}


def varied(fields: dict[str, Any]) -> MedGemmaConfig:
    config = tiny_medgemma()
    return replace(config, text_config=replace(config.text_config, **fields))


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_equals_torch(fields: dict[str, Any]) -> None:
    made, ids = model(varied(fields)), drawn(THREE_WINDOWS)
    assert difference(whole(decoder(made), made, ids), expected(made, ids)) <= off_in_bf16(
        made, ids
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"query_pre_attn_scalar": 21},
        {"rope_scaling_factor": 1.0},
        {"rope_theta": 100.0},
        {"rope_local_base_freq": 1_000_000.0},
        {"sliding_window": 9},
        {"layer_types": ("full_attention",) * 4},
        {"rms_norm_eps": 1e-2},
    ],
    ids=str,
)
def test_the_tolerance_would_notice_each_number(fields: dict[str, Any]) -> None:
    made, ids = model(tiny_medgemma()), drawn(THREE_WINDOWS)
    wrong = model(varied(fields))
    wrong.load_state_dict(made.state_dict())
    assert difference(whole(decoder(wrong), made, ids), expected(made, ids)) > BF16_TOLERANCE


@pytest.mark.parametrize("tokens", [1, 16])
def test_other_numbers_of_image_tokens(tokens: int) -> None:
    """16 tokens are an image twice as long as the window."""
    made = model(replace(tiny_medgemma(), mm_tokens_per_image=tokens))
    ids = drawn("ab" + "IIII" * 4 + "cdefghijk")
    assert difference(whole(decoder(made), made, ids), expected(made, ids)) <= off_in_bf16(
        made, ids
    )


def test_touching_images_stay_apart() -> None:
    made, ids = model(tiny_medgemma()), drawn("abIIIIIIIIcdef")
    assert difference(whole(decoder(made), made, ids), expected(made, ids)) <= off_in_bf16(
        made, ids
    )


def test_image_token_beyond_the_vocabulary() -> None:
    """Unpadded checkpoints have 262,144 rows and the image token 262,144."""
    made = model(replace(tiny_medgemma(), image_token_id=128))
    ids = drawn(ONE_IMAGE, made.config)
    assert 128 in ids
    assert difference(whole(decoder(made), made, ids), expected(made, ids)) <= off_in_bf16(
        made, ids
    )


SEVERAL_GROUPS = {
    "hidden_size": 320,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "layer_types": ("sliding_attention", "full_attention"),
}


@pytest.mark.parametrize("kv_format", ["bf16", "int8"])
@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize(
    ("fields", "length"), [({}, 5), (SEVERAL_GROUPS, 3)], ids=["one group", "several groups"]
)
def test_integer_weights_equal_the_packed_model_in_torch(
    fields: dict[str, Any], length: int, format: str, kv_format: str
) -> None:
    """Every rounding is the reference's, so that only the order of float32 sums differs.

    That can turn a rounding of an activation the other way, which these wild weights carry on to
    every later position; whether it does depends on the processor. So prompts are short, and of
    many most are held to float32's precision.
    """
    made = model(varied(fields))
    packer = Packer(*native())
    weights = pack_decoder(
        made.config.text_config, reader(made), lambda _, values_RC: packer.pack(values_RC, format)
    )
    ours = decoder(made, format, kv_format)
    reference = packed_medgemma(made.config, weights, packer.unpack, kv_format=kv_format)
    differences = []
    for seed in range(30):
        ids = np.random.default_rng(seed).integers(0, 120, length).tolist()
        differences.append(difference(whole(ours, made, ids), expected(reference, ids)))
    assert np.median(differences) <= 1e-6
    assert max(differences) <= 2**-4


@pytest.mark.parametrize("format", ["bf16", "int8", "int4"])
def test_scores_stay_near_those_of_the_model_that_was_packed(format: str) -> None:
    made, ids = model(tiny_medgemma()), drawn(TWO_IMAGES)
    off = difference(whole(decoder(made, format), made, ids), expected(made, ids))
    # Four bits are too few for weights as wild as these; only that they are weights of this model.
    assert off <= {"bf16": 0.02, "int8": 0.1, "int4": 0.8}[format]


@pytest.mark.parametrize("format", ["q8_0", "q4_0"])
def test_the_formats_of_gguf(format: str) -> None:
    made, packer = model(tiny_medgemma()), Packer(*native())

    def pack(_: str, values_RC: NDArray[np.float32]) -> Matrix:
        return packer.pack_gguf(gguf_blocks(values_RC, format), format, *values_RC.shape)

    weights = pack_decoder(made.config.text_config, reader(made), pack)
    ours = Decoder(made.config, weights, *native())
    reference = packed_medgemma(made.config, weights, packer.unpack)
    differences = []
    for seed in range(10):
        ids = np.random.default_rng(seed).integers(0, 120, 5).tolist()
        differences.append(difference(whole(ours, made, ids), expected(reference, ids)))
    assert np.median(differences) <= 1e-6


def gguf_blocks(values_RC: NDArray[np.float32], format: str) -> NDArray[np.uint8]:
    """Blocks of 32 columns with one fp16 scale each, as GGUF stores them."""
    blocks = values_RC.reshape(-1, 32)
    top = 127 if format == "q8_0" else 7
    scale = (np.abs(blocks).max(1, keepdims=True) / top).astype(np.float16)
    rounded = np.clip(np.rint(blocks / scale.astype(np.float32)), -top, top).astype(np.int8)
    stored = rounded.view(np.uint8)
    if format == "q4_0":
        stored = (rounded[:, :16] + 8).view(np.uint8) | (rounded[:, 16:] + 8).view(np.uint8) << 4
    return np.hstack([scale.view(np.uint8), stored]).reshape(-1)


@pytest.mark.parametrize("kv_format", ["bf16", "int8"])
def test_thousands_of_positions(kv_format: str) -> None:
    """Contexts that are attended in parts, and windows that left most pages behind."""
    made = model(varied({"sliding_window": 100}))
    ids = np.random.default_rng(0).integers(0, 120, 2500).tolist()
    off = difference(whole(decoder(made, "bf16", kv_format), made, ids), expected(made, ids))
    assert off <= 2 * off_in_bf16(made, ids)
