"""Models small enough for a test, with random weights that all matter."""

import torch
from torch import nn

from osler.models.config import (
    FULL,
    SLIDING,
    MedGemmaConfig,
    MedSiglipConfig,
    SiglipTextConfig,
    TextConfig,
    VisionConfig,
)


def tiny_vision() -> VisionConfig:
    """A tower over 4 x 4 patches."""
    return VisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
    )


def tiny_text() -> TextConfig:
    """A decoder with grouped queries, a window of 8 and rope scaling on its global layer."""
    return TextConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        vocab_size=128,
        sliding_window=8,
        layer_types=(SLIDING, SLIDING, FULL, SLIDING),
        max_position_embeddings=1024,
    )


def tiny_medgemma() -> MedGemmaConfig:
    """A multimodal model whose images are 4 tokens."""
    return MedGemmaConfig(
        text_config=tiny_text(),
        vision_config=tiny_vision(),
        mm_tokens_per_image=4,
        image_token_id=120,
        boi_token_id=121,
        eoi_token_id=122,
    )


def tiny_medgemma_text() -> MedGemmaConfig:
    """A model without a vision tower."""
    return MedGemmaConfig(text_config=tiny_text())


def tiny_medsiglip() -> MedSiglipConfig:
    """An encoder pair with embeddings of 32 values and texts of 64 positions."""
    text = SiglipTextConfig(
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=100,
        projection_size=32,
    )
    return MedSiglipConfig(text_config=text, vision_config=tiny_vision())


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter random values, so that none can be lost unnoticed.

    Biases, norm weights and the logit scale and bias are moved off their neutral value; matrices
    keep the scale of what they multiply.

    Args:
        model: changed in place.
        seed: same seed, same values, whatever they were before.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(values * values[0].numel() ** -0.5)
            else:
                owner = model.get_submodule(name.rpartition(".")[0])
                is_scale = isinstance(owner, nn.LayerNorm) and name.endswith("weight")
                parameter.copy_(0.2 * values + (1.0 if is_scale else 0.0))
        # A decoder's blocks must drown the embedding, or the head tied with it says the last token
        # again and again.
        outputs = [
            parameter
            for name, parameter in model.named_parameters()
            if name.endswith("post_feedforward_layernorm.weight")
        ]
        for weight in outputs:
            weight.add_((weight.numel() / len(outputs)) ** 0.5)
