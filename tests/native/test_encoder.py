"""The native encoders against torch and against references with the same roundings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from osler.models.checkpoint import load_medsiglip
from osler.models.config import MedGemmaConfig, MedSiglipConfig
from osler.native.encoder import NativeVision, VisionPatches
from osler.native.library import Library, Pool
from osler.native.packing import Packer
from osler.testing.models import tiny_medgemma, tiny_medgemma_text, tiny_medsiglip, tiny_vision
from osler.testing.quantised_encoder import PackedVision, packed_medsiglip
from tests.native.encoders import (
    inputs,
    native_medsiglip,
    native_vision,
    odd_medsiglip,
    pack,
    random_medgemma,
    random_medsiglip,
    relative,
    small_medgemma,
    small_medsiglip,
    tower_state,
)

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
BFLOAT16 = 2**-6  # as in tests/models/test_parity_*: four units in its last place

MEDSIGLIPS = {"tiny": tiny_medsiglip, "odd": odd_medsiglip, "small": small_medsiglip}


@pytest.mark.parametrize("config", MEDSIGLIPS.values(), ids=MEDSIGLIPS.keys())
def test_bfloat16_medsiglip_stays_close_to_torch(config, native: Library, pool: Pool) -> None:
    model = random_medsiglip(config())
    ours = native_medsiglip(native, pool, model)
    pixels, ids = inputs(model.config, 3)
    model.bfloat16()
    assert relative(ours.embed_images(pixels), model.embed_images(pixels)) <= BFLOAT16
    assert relative(ours.embed_texts(ids), model.embed_texts(ids)) <= BFLOAT16


def test_each_towers_norm_epsilon_is_its_own(native: Library, pool: Pool) -> None:
    tiny = tiny_medsiglip()
    config = MedSiglipConfig(
        text_config=replace(tiny.text_config, layer_norm_eps=0.1),
        vision_config=replace(tiny.vision_config, layer_norm_eps=0.2),
    )
    model = random_medsiglip(config)
    ours = native_medsiglip(native, pool, model)
    pixels, ids = inputs(config, 3)
    assert relative(ours.embed_images(pixels), model.embed_images(pixels)) <= BFLOAT16
    assert relative(ours.embed_texts(ids), model.embed_texts(ids)) <= BFLOAT16


SOFT_TOKENS = {
    tokens: replace(tiny_medgemma(), mm_tokens_per_image=tokens) for tokens in (1, 4, 16)
}


@pytest.mark.parametrize("config", [*SOFT_TOKENS.values(), small_medgemma()], ids=[1, 4, 16, 64])
def test_bfloat16_soft_tokens_stay_close_to_torch(config, native: Library, pool: Pool) -> None:
    model = random_medgemma(config)
    side = config.vision_config.image_size
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    ours = native_vision(native, pool, model).embed_images(pixels)
    assert ours.shape == (2, config.mm_tokens_per_image, 64)
    assert relative(ours, model.bfloat16().embed_images(pixels)) <= BFLOAT16


def test_patches_alone(native: Library, pool: Pool) -> None:
    model = random_medsiglip(odd_medsiglip())
    config = model.config.vision_config
    patches = VisionPatches(config, pack(native, pool, model, "bf16"), native, pool)
    pixels, _ = inputs(model.config, 3)
    ours = torch.from_numpy(patches(pixels.numpy()))
    assert ours.shape == (3, 25, 60)
    assert relative(ours, model.vision_model(pixels)) <= BFLOAT16


def _agree(ours_ND: torch.Tensor, theirs_ND: torch.Tensor) -> None:
    """Each row's difference is that of float32 sums in another order.

    Unless that turns the rounding of an activation the other way, which these few and wild weights
    carry on to the result: rows may be off by as much as such roundings make, and how many are
    depends on the processor and the compiler. What is wrong shows in every row.
    """
    off_N = (ours_ND - theirs_ND).abs().amax(dim=1) / theirs_ND.abs().amax(dim=1)
    assert np.quantile(off_N, 0.1) <= 1e-6
    assert np.median(off_N) <= 2**-8
    assert off_N.max() <= 2**-5


@pytest.mark.parametrize("format", ["bf16", "int8"])
@pytest.mark.parametrize("config", [tiny_medsiglip, odd_medsiglip])
def test_medsiglip_equals_torch_with_the_same_roundings(
    config, format: str, native: Library, pool: Pool
) -> None:
    model = random_medsiglip(config())
    reference = packed_medsiglip(
        model.config,
        model.state_dict(),
        pack(native, pool, model, format),
        Packer(native, pool).unpack,
        rounds_attention=native.kernels in ("avx512", "amx"),
    ).requires_grad_(False)
    ours = native_medsiglip(native, pool, model, format)
    pixels, ids = inputs(model.config, 30)
    _agree(ours.embed_images(pixels), reference.embed_images(pixels.bfloat16().float()))
    _agree(ours.embed_texts(ids), reference.embed_texts(ids))


@pytest.mark.parametrize("format", ["bf16", "int8"])
def test_soft_tokens_equal_torch_with_the_same_roundings(
    format: str, native: Library, pool: Pool
) -> None:
    model = random_medgemma(tiny_medgemma())
    reference = PackedVision(
        model.config,
        tower_state(model),
        pack(native, pool, model, format),
        Packer(native, pool).unpack,
        rounds_attention=native.kernels in ("avx512", "amx"),
    ).requires_grad_(False)
    pixels = torch.rand(30, 3, 56, 56, generator=torch.Generator().manual_seed(1)) * 2 - 1
    ours = native_vision(native, pool, model, format).embed_images(pixels)
    _agree(ours.flatten(0, 1), reference.embed_images(pixels).flatten(0, 1))


def test_int8_of_the_nano_points_where_float32_does(native: Library, pool: Pool) -> None:
    model = load_medsiglip(WEIGHTS / "medsiglip-nano", dtype=torch.float32).requires_grad_(False)
    ours = native_medsiglip(native, pool, model, "int8")
    side = model.config.vision_config.image_size
    generator = torch.Generator().manual_seed(0)
    # Noise of several grains, as the eye sees it; black and white.
    noise = [torch.rand(4, 3, grain, grain, generator=generator) for grain in (5, 28, side)]
    scaled = [F.interpolate(image, size=(side, side), mode="bilinear") for image in noise]
    pixels = torch.cat([*scaled, torch.zeros(1, 3, side, side), torch.ones(1, 3, side, side)])
    pixels = pixels * 2 - 1
    _, ids = inputs(model.config, 8)
    for found, wanted in (
        (ours.embed_images(pixels), model.embed_images(pixels)),
        (ours.embed_texts(ids), model.embed_texts(ids)),
    ):
        assert float((found * wanted).sum(dim=1).min()) >= 0.999


def test_many_together_are_as_each_alone(native: Library, pool: Pool) -> None:
    """More images and texts than go through the layers together."""
    model = random_medsiglip(tiny_medsiglip())
    ours = native_medsiglip(native, pool, model)
    pixels, ids = inputs(model.config, 70)
    images, texts = ours.embed_images(pixels), ours.embed_texts(ids)
    for i in (0, 1, 17, 63, 64, 69):
        assert relative(images[i], ours.embed_images(pixels[i : i + 1])[0]) <= 1e-5
        assert relative(texts[i], ours.embed_texts(ids[i : i + 1])[0]) <= 1e-5


def test_any_number_of_threads_gives_the_same(native: Library, pool: Pool) -> None:
    model = random_medsiglip(odd_medsiglip())
    pixels, ids = inputs(model.config, 5)
    alone, several = (
        native_medsiglip(native, threads, model, "int8") for threads in (native.pool(1), pool)
    )
    assert torch.equal(alone.embed_images(pixels), several.embed_images(pixels))
    assert torch.equal(alone.embed_texts(ids), several.embed_texts(ids))


def test_scores_far_apart_are_no_overflow(native: Library, pool: Pool) -> None:
    """Scores that rise by thousands from one block of keys to the next."""
    config = small_medsiglip()
    model = random_medsiglip(config)
    for name, weight in model.vision_model.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight.mul_(30)
    pixels, _ = inputs(config, 2)
    pixels *= torch.linspace(0, 1, config.vision_config.image_size)[:, None]
    embedded = native_medsiglip(native, pool, model).embed_images(pixels)
    assert torch.isfinite(embedded).all()
    assert float((embedded * model.embed_images(pixels)).sum(dim=1).min()) >= 0.97


def test_what_is_no_number_stays_none_and_stays_alone(native: Library, pool: Pool) -> None:
    model = random_medsiglip(tiny_medsiglip())
    ours = native_medsiglip(native, pool, model)
    pixels, _ = inputs(model.config, 3)
    clean = ours.embed_images(pixels)
    pixels[1, 0, 20, 20] = torch.nan
    embedded = ours.embed_images(pixels)
    assert embedded[1].isnan().all()
    assert torch.equal(embedded[[0, 2]], clean[[0, 2]])
    pixels[1, 0, 20, 20] = 0
    assert ours.embed_images(pixels).isfinite().all()


def test_nothing_gives_no_rows(native: Library, pool: Pool) -> None:
    ours = native_medsiglip(native, pool, random_medsiglip(tiny_medsiglip()))
    assert ours.embed_images(torch.empty(0, 3, 56, 56)).shape == (0, 32)
    assert ours.embed_texts(torch.empty(0, 64, dtype=torch.int64)).shape == (0, 32)


def test_inputs_of_other_shapes_are_refused(native: Library, pool: Pool) -> None:
    ours = native_medsiglip(native, pool, random_medsiglip(tiny_medsiglip()))
    with pytest.raises(ValueError, match="images of shape"):
        ours.embed_images(torch.zeros(1, 3, 28, 28))
    with pytest.raises(ValueError, match="texts of shape"):
        ours.embed_texts(torch.zeros(1, 63, dtype=torch.int64))
    for unknown in (-1, 100):
        with pytest.raises(ValueError, match="vocabulary"):
            ours.embed_texts(torch.full((2, 64), unknown))


def test_a_model_without_images_is_refused(native: Library, pool: Pool) -> None:
    config: MedGemmaConfig = tiny_medgemma_text()
    weights = pack(native, pool, random_medsiglip(tiny_medsiglip()), "bf16")
    with pytest.raises(ValueError, match="text only"):
        NativeVision(config, weights, native, pool)


def test_weights_of_other_sizes_are_refused(native: Library, pool: Pool) -> None:
    config = tiny_medgemma()
    weights = pack(native, pool, random_medgemma(config), "bf16")
    other = replace(config, vision_config=replace(tiny_vision(), intermediate_size=64))
    with pytest.raises(ValueError, match=r"mlp\.fc1\.weight is 48 x 32, not 64 x 32"):
        NativeVision(other, weights, native, pool)
