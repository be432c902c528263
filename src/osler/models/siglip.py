"""SigLIP transformers: the vision tower, the pooling head and the text tower.

Shapes: N images or texts, C channels, S image side, P patches, L text positions, D hidden_size.

Source: SigLIP (arXiv 2303.15343); sizes in `config.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osler.models.activation import gelu_tanh
from osler.models.config import EncoderSizes, SiglipTextConfig, VisionConfig


class Attention(nn.Module):
    """Bidirectional multi-head attention."""

    def __init__(self, config: EncoderSizes) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_NPD: Tensor) -> Tensor:
        q, k, v = (
            projection(x_NPD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two linear layers around the tanh form of GELU."""

    def __init__(self, config: EncoderSizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(gelu_tanh(self.fc1(x)))
        return out


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: EncoderSizes) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x_NPD: Tensor) -> Tensor:
        x_NPD = x_NPD + self.self_attn(self.layer_norm1(x_NPD))
        fed: Tensor = self.mlp(self.layer_norm2(x_NPD))
        return x_NPD + fed


class Encoder(nn.Module):
    """A stack of blocks."""

    def __init__(self, config: EncoderSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def forward(self, x_NPD: Tensor) -> Tensor:
        for layer in self.layers:
            x_NPD = layer(x_NPD)
        return x_NPD


class PatchEmbeddings(nn.Module):
    """Patches by a strided convolution, plus a learned vector for each place in the grid."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(config.grid**2, config.hidden_size)

    def forward(self, pixels_NCSS: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels_NCSS.to(self.patch_embedding.weight.dtype))
        out: Tensor = patches.flatten(2).transpose(1, 2) + self.position_embedding.weight
        return out


class VisionTower(nn.Module):
    """Pixels to one vector a patch."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixels_NCSS: Tensor) -> Tensor:
        """Encode images.

        Args:
            pixels_NCSS: float, -1 to 1, S = `image_size`.

        Returns:
            (N, P, D), P = patches in reading order.
        """
        out: Tensor = self.post_layernorm(self.encoder(self.embeddings(pixels_NCSS)))
        return out


class PoolingHead(nn.Module):
    """Attention pooling: one learned query over the patches, then a residual feed-forward."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.attention = nn.MultiheadAttention(
            config.hidden_size, config.num_attention_heads, batch_first=True
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FeedForward(config)
        nn.init.normal_(self.probe)

    def forward(self, x_NPD: Tensor) -> Tensor:
        probe = self.probe.expand(x_NPD.shape[0], -1, -1)
        pooled: Tensor = self.attention(probe, x_NPD, x_NPD, need_weights=False)[0]
        pooled = pooled + self.mlp(self.layernorm(pooled))
        return pooled[:, 0]


class TextEmbeddings(nn.Module):
    """Token and position embeddings."""

    def __init__(self, config: SiglipTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids_NL: Tensor) -> Tensor:
        out: Tensor = (
            self.token_embedding(ids_NL) + self.position_embedding.weight[: ids_NL.shape[1]]
        )
        return out


class TextTower(nn.Module):
    """Token ids to one vector: the last position's, which may be padding, as it was trained."""

    def __init__(self, config: SiglipTextConfig) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.projection_size)

    def forward(self, ids_NL: Tensor) -> Tensor:
        """Encode texts.

        Args:
            ids_NL: int64, padded to `max_position_embeddings`; there is no padding mask.

        Returns:
            (N, projection_size).
        """
        x_NLD = self.final_layer_norm(self.encoder(self.embeddings(ids_NL)))
        out: Tensor = self.head(x_NLD[:, -1])
        return out
