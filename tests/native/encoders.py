"""Encoders to test the native ones with: random weights, native and in torch.

Shapes: N images or texts, C channels, S image side, L text positions.
"""

from dataclasses import replace

import torch
from torch import Tensor

from osler.models.config import MedGemmaConfig, MedSiglipConfig
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.native.encoder import NativeMedSiglip, NativeVision
from osler.native.encoder_weights import PackedEncoder
from osler.native.library import Library, Pool
from osler.native.packing import Packer
from osler.testing.models import randomise, tiny_medgemma, tiny_medsiglip

TOWER = ("vision_tower.", "multi_modal_projector.")


def odd_medsiglip() -> MedSiglipConfig:
    """Sizes that no kernel likes: heads of 20, 25 patches of 6 x 6, 70 and 44 inner values."""
    tiny = tiny_medsiglip()
    sizes = {"hidden_size": 60, "num_attention_heads": 3}
    return MedSiglipConfig(
        vision_config=replace(
            tiny.vision_config, **sizes, intermediate_size=70, image_size=30, patch_size=6
        ),
        text_config=replace(tiny.text_config, **sizes, intermediate_size=44, projection_size=60),
    )


def small_medsiglip() -> MedSiglipConfig:
    """The real heads of 72, three of them, over more patches than are attended at a time."""
    tiny = tiny_medsiglip()
    sizes = {"hidden_size": 216, "num_attention_heads": 3, "intermediate_size": 400}
    return MedSiglipConfig(
        vision_config=replace(tiny.vision_config, **sizes, image_size=208, patch_size=13),
        text_config=replace(tiny.text_config, **sizes, projection_size=216),
    )


def small_medgemma() -> MedGemmaConfig:
    """The tower of `small_medsiglip`, pooled to 64 soft tokens."""
    vision = small_medsiglip().vision_config
    return replace(tiny_medgemma(), vision_config=vision, mm_tokens_per_image=64)


def random_medsiglip(config: MedSiglipConfig) -> MedSiglip:
    model = MedSiglip(config)
    randomise(model)
    return model.eval().requires_grad_(False)


def random_medgemma(config: MedGemmaConfig) -> MedGemma:
    model = MedGemma(config)
    randomise(model)
    return model.eval().requires_grad_(False)


def tower_state(model: MedGemma) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if name.startswith(TOWER)}


def pack(native: Library, pool: Pool, model: MedSiglip | MedGemma, format: str) -> PackedEncoder:
    state = tower_state(model) if isinstance(model, MedGemma) else model.state_dict()
    assert model.config.vision_config is not None
    heads = model.config.vision_config.num_attention_heads
    return PackedEncoder(state, Packer(native, pool), format, heads=heads)


class Tensors:
    """A native encoder that takes and gives tensors, to be compared with those in torch."""

    def __init__(self, encoder: NativeMedSiglip | NativeVision) -> None:
        self.encoder = encoder

    def embed_images(self, pixels_NCSS: Tensor) -> Tensor:
        return torch.from_numpy(self.encoder.embed_images(pixels_NCSS.numpy()))

    def embed_texts(self, ids_ML: Tensor) -> Tensor:
        assert isinstance(self.encoder, NativeMedSiglip)
        return torch.from_numpy(self.encoder.embed_texts(ids_ML.numpy()))


def native_medsiglip(
    native: Library, pool: Pool, model: MedSiglip, format: str = "bf16"
) -> Tensors:
    return Tensors(NativeMedSiglip(model.config, pack(native, pool, model, format), native, pool))


def native_vision(native: Library, pool: Pool, model: MedGemma, format: str = "bf16") -> Tensors:
    return Tensors(NativeVision(model.config, pack(native, pool, model, format), native, pool))


def inputs(config: MedSiglipConfig, count: int) -> tuple[Tensor, Tensor]:
    """Images, and texts that are padded on the right as the tokenizer does."""
    generator = torch.Generator().manual_seed(2)
    vision, text = config.vision_config, config.text_config
    shape = (count, vision.num_channels, vision.image_size, vision.image_size)
    pixels_NCSS = torch.rand(shape, generator=generator) * 2 - 1
    length = text.max_position_embeddings
    ids_NL = torch.randint(2, text.vocab_size, (count, length), generator=generator)
    for row in range(count):
        ids_NL[row, 4 + 20 * row :] = text.pad_token_id
    return pixels_NCSS, ids_NL


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    assert ours.shape == theirs.shape
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
