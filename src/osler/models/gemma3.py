"""The Gemma 3 text decoder.

Shapes: B batch, L positions, D hidden_size, N query heads, K key-value heads, H head_dim,
V vocabulary.

Source: Gemma 3 technical report (arXiv 2503.19786), section 2. The order of the roundings in low
precision follows `transformers`, so that both pick the same tokens in bfloat16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osler.models.activation import gelu_tanh
from osler.models.attention import attend
from osler.models.attention_mask import attention_mask
from osler.models.config import FULL, SLIDING, TextConfig
from osler.models.kv_cache import KVCache, LayerCache


class RMSNorm(nn.Module):
    """Root-mean-square norm with weight 1 + w, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (normed * (1.0 + self.weight.float())).type_as(x)


def rotary(
    position_BL: Tensor, head_dim: int, theta: float, factor: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary embedding with linear scaling.

    Args:
        position_BL: int64 positions.
        head_dim: size of a head, even.
        theta: base of the frequencies.
        factor: what positions are divided by (1 for none).
        dtype: of the result; angles are computed in float32.

    Returns:
        cos and sin, each (B, 1, L, H).
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float, device=position_BL.device) / head_dim
    frequency = 1.0 / (theta**exponent) / factor
    angle_BLH = (position_BL[..., None].float() * frequency).repeat(1, 1, 2)
    return angle_BLH.cos().to(dtype)[:, None], angle_BLH.sin().to(dtype)[:, None]


def rotate(x_BNLH: Tensor, cos_B1LH: Tensor, sin_B1LH: Tensor) -> Tensor:
    """Turn pairs (i, i + H/2) of each head by their angles."""
    low, high = x_BNLH.chunk(2, dim=-1)
    return x_BNLH * cos_B1LH + torch.cat([-high, low], dim=-1) * sin_B1LH


class Attention(nn.Module):
    """Grouped-query attention with query and key norms."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.scale = config.query_pre_attn_scalar**-0.5
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(
        self,
        x_BLD: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        mask_B1LL: Tensor | None,
        cache: LayerCache | None,
    ) -> Tensor:
        heads = (*x_BLD.shape[:2], -1, self.head_dim)
        q_BNLH = self.q_norm(self.q_proj(x_BLD).view(heads).transpose(1, 2))
        k_BKLH = self.k_norm(self.k_proj(x_BLD).view(heads).transpose(1, 2))
        v_BKLH = self.v_proj(x_BLD).view(heads).transpose(1, 2)
        q_BNLH, k_BKLH = rotate(q_BNLH, *cos_sin), rotate(k_BKLH, *cos_sin)
        if cache is None:
            out_BNLH = attend(q_BNLH, k_BKLH, v_BKLH, mask_B1LL, self.scale)
        else:
            out_BNLH = cache.attend(q_BNLH, k_BKLH, v_BKLH, self.scale)
        out: Tensor = self.o_proj(out_BNLH.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """GeGLU with the tanh form of GELU."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = gelu_tanh(self.gate_proj(x))
        out: Tensor = self.down_proj(gate * self.up_proj(x))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each with a norm before and after."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.pre_feedforward_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x_BLD: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        mask_B1LL: Tensor | None,
        cache: LayerCache | None,
    ) -> Tensor:
        attended = self.self_attn(self.input_layernorm(x_BLD), cos_sin, mask_B1LL, cache)
        x_BLD = x_BLD + self.post_attention_layernorm(attended)
        fed = self.mlp(self.pre_feedforward_layernorm(x_BLD))
        out: Tensor = x_BLD + self.post_feedforward_layernorm(fed)
        return out


class GemmaDecoder(nn.Module):
    """Embeddings, blocks and final norm; the head is the embedding again."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Scaled token embeddings (B, L, D)."""
        scale = torch.tensor(self.config.hidden_size**0.5, dtype=self.embed_tokens.weight.dtype)
        embedded: Tensor = self.embed_tokens(ids_BL)
        return embedded * scale

    def forward(
        self, x_BLD: Tensor, real_BL: Tensor, block_BL: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        """Run the blocks.

        Args:
            x_BLD: embeddings.
            real_BL: bool, False at padding.
            block_BL: int64, the image of each position, see `image_blocks`.
            cache: where the positions are of sequences that go on: B is 1, the positions are those
                of the cache's spans, and none of them is padding.

        Returns:
            Hidden states (B, L, D) after the final norm.
        """
        masks: dict[str, Tensor | None] = dict.fromkeys((SLIDING, FULL))
        if cache is None:
            position_BL = (real_BL.long().cumsum(dim=1) - 1).clamp(min=0)
            masks = self._masks(real_BL, block_BL)
        else:
            position_BL = cache.position_1R
            cache.see(block_BL)
        angles = {
            SLIDING: self._rotary(position_BL, self.config.rope_local_base_freq, 1.0, x_BLD.dtype),
            FULL: self._rotary(
                position_BL, self.config.rope_theta, self.config.rope_scaling_factor, x_BLD.dtype
            ),
        }
        for index, (layer, kind) in enumerate(
            zip(self.layers, self.config.layer_types, strict=True)
        ):
            layer_cache = cache.layers[index] if cache else None
            x_BLD = layer(x_BLD, angles[kind], masks[kind], layer_cache)
        normed: Tensor = self.norm(x_BLD)
        return normed

    def logits(self, x_BLD: Tensor) -> Tensor:
        """Scores over the vocabulary, float32 (B, L, V)."""
        return F.linear(x_BLD, self.embed_tokens.weight).float()

    def _rotary(
        self, position_BL: Tensor, theta: float, factor: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        return rotary(position_BL, self.config.head_dim, theta, factor, dtype)

    def _masks(self, real_BL: Tensor, block_BL: Tensor) -> dict[str, Tensor | None]:
        """One mask a kind of layer; None where plain causal attention is the same."""
        length = real_BL.shape[1]
        place_L = torch.arange(length, device=real_BL.device)
        plain = bool(real_BL.all()) and bool((block_BL < 0).all())
        masks: dict[str, Tensor | None] = {}
        for kind, window in ((SLIDING, self.config.sliding_window), (FULL, None)):
            if plain and (window is None or length <= window):
                masks[kind] = None
                continue
            masks[kind] = attention_mask(place_L, place_L, real_BL, block_BL, block_BL, window)
        return masks
