"""The torch model with packed weights: every rounding of the native decoder, in plain torch.

Weights are the unpacked ones; a linear layer rounds its input as csrc/linear.h says; queries, keys,
values and attention weights are rounded as csrc/attention_decoder.h and csrc/kv.h say. Products are
summed in float64, so what differs from the native decoder is float32 alone.

Shapes: B batch, L positions, T tokens of a product, C columns (inputs), R rows (outputs), N query
heads, K key-value heads, H head size, D hidden_size, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from osler.models.config import MedGemmaConfig, TextConfig
from osler.models.gemma3 import Attention, GemmaDecoder, rotate
from osler.models.kv_cache import LayerCache
from osler.models.medgemma import MedGemma
from osler.native.decoder_weights import DecoderWeights, decoder_parts
from osler.native.formats import Matrix
from osler.native.packing import interleave


def pack_decoder(
    config: TextConfig,
    read: Callable[[str], NDArray[np.float32]],
    pack: Callable[[str, NDArray[np.float32]], Matrix],
) -> dict[str, Matrix | NDArray[np.float32]]:
    """Pack a whole decoder, a tensor at a time.

    Args:
        config: its sizes.
        read: gives a tensor of `models.medgemma` by name, float32.
        pack: packs a fused matrix (R, C) of a name.

    Returns:
        Name to packed matrix or norm.
    """
    weights: dict[str, Matrix | NDArray[np.float32]] = {}
    for part in decoder_parts(config):
        values = _fused([read(source) for source in part.sources])
        weights[part.name] = pack(part.name, values) if part.is_matrix else values
    return weights


def rounded_activations(x_TC: Tensor, matrix: Matrix) -> Tensor:
    """Inputs as the product with a matrix takes them, float64 (T, C)."""
    if matrix.format == "bf16":
        return x_TC.bfloat16().double()
    columns = x_TC.shape[1]
    group = matrix.group or columns
    groups_TGC = F.pad(x_TC, (0, -columns % group)).unflatten(1, (-1, group))
    scale_TG1 = groups_TGC.abs().amax(dim=2, keepdim=True) / 127
    values_TGC: Tensor = (groups_TGC * (1 / scale_TG1)).nan_to_num(0).round()
    rounded_TC: Tensor = (values_TGC.double() * scale_TG1.double()).flatten(1)
    return rounded_TC[:, :columns]


class PackedLinear(nn.Module):
    """A linear layer with some rows of a packed matrix."""

    def __init__(self, matrix: Matrix, weight_RC: NDArray[np.float32]) -> None:
        super().__init__()
        self.matrix = matrix
        self.weight_RC = torch.from_numpy(weight_RC).double()

    def forward(self, x: Tensor) -> Tensor:
        rounded_TC = rounded_activations(x.float().reshape(-1, x.shape[-1]), self.matrix)
        return (rounded_TC @ self.weight_RC.T).float().view(*x.shape[:-1], -1)


class PagedAttention(Attention):
    """Attention over keys and values as pages hold them."""

    def __init__(self, config: TextConfig, kv_format: str) -> None:
        super().__init__(config)
        self.kv_format = kv_format
        self.groups = config.num_attention_heads // config.num_key_value_heads

    def forward(
        self,
        x_BLD: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        mask_B1LL: Tensor | None,
        cache: LayerCache | None,
    ) -> Tensor:
        assert cache is None
        length = x_BLD.shape[1]
        heads = (*x_BLD.shape[:2], -1, self.head_dim)
        q_BNLH = self.q_norm(self.q_proj(x_BLD).view(heads).transpose(1, 2))
        k_BKLH = self.k_norm(self.k_proj(x_BLD).view(heads).transpose(1, 2))
        v_BKLH = self.v_proj(x_BLD).view(heads).transpose(1, 2)
        q_BNLH, k_BKLH = rotate(q_BNLH, *cos_sin), rotate(k_BKLH, *cos_sin)
        q_BNLH = (q_BNLH * (self.scale * math.log2(math.e))).bfloat16()
        k_BNLH, k_scale = self._stored(k_BKLH)
        v_BNLH, v_scale = self._stored(v_BKLH)
        seen = (
            torch.ones(length, length, dtype=torch.bool).tril() if mask_B1LL is None else mask_B1LL
        )
        score = (q_BNLH.double() @ k_BNLH.transpose(2, 3)) * k_scale.transpose(2, 3)
        score = score.masked_fill(~seen, -math.inf)
        weight = torch.exp2(score - score.amax(dim=3, keepdim=True).ceil())
        rounded = (weight * v_scale.transpose(2, 3)).float().bfloat16().double()
        out_BNLH = (rounded @ v_BNLH / weight.sum(dim=3, keepdim=True)).float()
        out: Tensor = self.o_proj(out_BNLH.transpose(1, 2).flatten(2))
        return out

    def _stored(self, x_BKLH: Tensor) -> tuple[Tensor, Tensor]:
        """What a page holds of keys or values, a head for each query, and its scales."""
        if self.kv_format == "bf16":
            held, scale = x_BKLH.bfloat16(), torch.ones_like(x_BKLH[..., :1])
        else:
            top = x_BKLH.abs().amax(dim=3, keepdim=True)
            held, scale = (x_BKLH * (127 / top)).nan_to_num(0).round(), top / 127
        return (
            held.double().repeat_interleave(self.groups, dim=1),
            scale.double().repeat_interleave(self.groups, dim=1),
        )


class PackedDecoder(GemmaDecoder):
    """The decoder of packed weights."""

    def __init__(
        self,
        config: TextConfig,
        weights: DecoderWeights,
        unpack: Callable[[Matrix], NDArray[np.float32]],
        kv_format: str,
    ) -> None:
        super().__init__(config)
        for layer in self.layers:
            layer.self_attn = PagedAttention(config, kv_format)
        state = {}
        for part in decoder_parts(config):
            values = weights[part.name]
            if not isinstance(values, Matrix):
                state[part.name] = torch.from_numpy(values)
                continue
            rows_RC = _apart(unpack(values), len(part.sources), config)
            for source, weight_RC in zip(part.sources, rows_RC, strict=True):
                state[source] = torch.from_numpy(weight_RC)
                if len(part.sources) > 1 or "layers" in source:
                    name = source.removeprefix("language_model.").removesuffix(".weight")
                    self.set_submodule(name, PackedLinear(values, weight_RC))
                else:
                    self.head = PackedLinear(values, weight_RC)
        inner = {name.removeprefix("language_model."): value for name, value in state.items()}
        self.load_state_dict({name: inner[name] for name in self.state_dict()})

    def embed(self, ids_BL: Tensor) -> Tensor:
        scale = torch.tensor(self.config.hidden_size**0.5).bfloat16().float()
        embedded: Tensor = self.embed_tokens(ids_BL)
        return embedded * scale

    def logits(self, x_BLD: Tensor) -> Tensor:
        scores: Tensor = self.head(x_BLD)
        return scores


def packed_medgemma(
    config: MedGemmaConfig,
    weights: DecoderWeights,
    unpack: Callable[[Matrix], NDArray[np.float32]],
    *,
    kv_format: str = "bf16",
) -> MedGemma:
    """The reference for a native decoder; images come as embeddings.

    Args:
        config: the model's sizes.
        weights: the native decoder's.
        unpack: gives the weights (R, C) that a packed matrix stands for, as `Packer.unpack` does.
        kv_format: of keys and values, "bf16" or "int8".
    """
    model = MedGemma(config)
    model.language_model = PackedDecoder(config.text_config, weights, unpack, kv_format)
    return model.eval()


def _apart(
    weight_RC: NDArray[np.float32], parts: int, config: TextConfig
) -> list[NDArray[np.float32]]:
    """What `_fused` put together."""
    if parts == 1:
        return [weight_RC]
    if parts == 2:
        turns = weight_RC.reshape(-1, 2, 16, weight_RC.shape[1])
        both = turns.swapaxes(0, 1).reshape(2, -1, weight_RC.shape[1])
        return [part[: config.intermediate_size] for part in both]
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    return np.split(weight_RC, [queries, queries + keys])


def _fused(tensors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One matrix of its sources: queries, keys, values; or gate and up projection in turns."""
    if len(tensors) == 1:
        return tensors[0]
    if len(tensors) == 2:
        return interleave(*tensors)
    return np.concatenate(tensors)
