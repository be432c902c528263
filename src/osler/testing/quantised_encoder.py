"""The torch encoders with packed weights: every rounding of the native ones, in plain torch.

Weights are the unpacked ones; a linear layer rounds its input as csrc/linear.h says, and attention
its operands as csrc/attention_encoder_bf16.h says, or not at all where kernels work in float32.
Products are summed in float64, so what differs from the native encoders is float32 alone.

Shapes: N images or texts, P patches or text positions, D hidden_size, K heads, H head size,
R rows (outputs), C columns (inputs).
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from osler.models.config import EncoderSizes, MedGemmaConfig, MedSiglipConfig, VisionConfig
from osler.models.medgemma import Projector
from osler.models.medsiglip import MedSiglip
from osler.models.siglip import Attention, Encoder, PoolingHead, VisionTower
from osler.native.encoder_structs import EncoderWeights
from osler.native.formats import Matrix
from osler.testing.quantised import PackedLinear

Unpack = Callable[[Matrix], NDArray[np.float32]]


class PackedDense(PackedLinear):
    """A linear layer with a bias."""

    def __init__(self, matrix: Matrix, weight_RC: NDArray[np.float32], bias_R: Tensor) -> None:
        super().__init__(matrix, weight_RC)
        self.bias_R = bias_R

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.bias_R


class BFloat16Attention(Attention):
    """Attention over rounded queries, keys, values and probabilities."""

    def forward(self, x_NPD: Tensor) -> Tensor:
        q_NKPH, k_NKPH, v_NKPH = (
            projection(x_NPD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        factor = math.log2(math.e) * q_NKPH.shape[-1] ** -0.5
        q_NKPH = (q_NKPH * factor).bfloat16().double()
        score_NKPP = q_NKPH @ k_NKPH.bfloat16().double().transpose(2, 3)
        # A power of two: what is rounded does not depend on it.
        weight_NKPP = _exp2(score_NKPP - score_NKPP.amax(dim=3, keepdim=True).ceil())
        rounded_NKPP = weight_NKPP.float().bfloat16().double()
        out_NKPH = rounded_NKPP @ v_NKPH.bfloat16().double() / weight_NKPP.sum(dim=3, keepdim=True)
        out: Tensor = self.out_proj(out_NKPH.float().transpose(1, 2).flatten(2))
        return out


class PackedHead(PoolingHead):
    """The pooling head, whose query and keys' matrix are one constant."""

    def __init__(self, config: VisionConfig, weights: EncoderWeights, unpack: Unpack) -> None:
        super().__init__(config)
        self.keys_KD = torch.tensor(weights.values("vision_head.probe_keys"))
        self.values = _dense(weights, unpack, "vision_head.v_proj")
        self.out = _dense(weights, unpack, "vision_head.attention.out_proj")

    def forward(self, x_NPD: Tensor) -> Tensor:
        weight_NKP = (self.keys_KD @ x_NPD.transpose(1, 2)).softmax(dim=-1)
        # The head that each hidden value belongs to keeps it.
        values_NKKH = self.values(weight_NKP @ x_NPD).unflatten(-1, (len(self.keys_KD), -1))
        values_NKH = values_NKKH.diagonal(dim1=1, dim2=2).transpose(1, 2)
        pooled_ND: Tensor = self.out(values_NKH.flatten(1))
        out: Tensor = pooled_ND + self.mlp(self.layernorm(pooled_ND))
        return out


def packed_medsiglip(
    config: MedSiglipConfig,
    state: Mapping[str, Tensor],
    weights: EncoderWeights,
    unpack: Unpack,
    *,
    rounds_attention: bool,
) -> MedSiglip:
    """The reference for a native MedSigLIP.

    Args:
        config: its sizes.
        state: of the torch model that was packed.
        weights: the packed ones.
        unpack: gives the weights (R, C) that a packed matrix stands for, as `Packer.unpack` does.
        rounds_attention: whether the kernels' attention has bf16 operands.
    """
    model = MedSiglip(config)
    model.load_state_dict(state)
    pack = _Replacer(weights, unpack, rounds_attention)
    pack.vision(model.vision_model, "vision_model", config.vision_config)
    head = PackedHead(config.vision_config, weights, unpack)
    head.load_state_dict(model.vision_head.state_dict(), strict=False)
    for name in ("mlp.fc1", "mlp.fc2"):
        head.set_submodule(name, _dense(weights, unpack, f"vision_head.{name}"))
    model.vision_head = head
    text = model.text_model
    pack.layers(text.encoder, "text_model.encoder", config.text_config)
    for embedding in (text.embeddings.token_embedding, text.embeddings.position_embedding):
        _round(embedding)
    text.set_submodule("head", _dense(weights, unpack, "text_model.head"))
    return model.eval()


class PackedVision(nn.Module):
    """The reference for MedGemma's native vision tower with its projector."""

    def __init__(
        self,
        config: MedGemmaConfig,
        state: Mapping[str, Tensor],
        weights: EncoderWeights,
        unpack: Unpack,
        *,
        rounds_attention: bool,
    ) -> None:
        super().__init__()
        assert config.vision_config is not None
        self.vision_tower = VisionTower(config.vision_config)
        self.multi_modal_projector = Projector(config)
        self.load_state_dict(dict(state))
        pack = _Replacer(weights, unpack, rounds_attention)
        pack.vision(self.vision_tower, "vision_tower", config.vision_config)
        matrix = weights.matrix("multi_modal_projector.mm_input_projection.weight")
        self.projection = PackedLinear(matrix, unpack(matrix))

    def embed_images(self, pixels_NCSS: Tensor) -> Tensor:
        """Soft tokens, as `MedGemma.embed_images`."""
        projector = self.multi_modal_projector
        pooled_NTD = projector.pooled(self.vision_tower(pixels_NCSS.bfloat16().float()))
        out: Tensor = self.projection(projector.mm_soft_emb_norm(pooled_NTD))
        return out


class _Replacer:
    """Puts packed modules in the place of torch's."""

    def __init__(self, weights: EncoderWeights, unpack: Unpack, rounds_attention: bool) -> None:
        self._weights = weights
        self._unpack = unpack
        self._rounds_attention = rounds_attention

    def vision(self, tower: VisionTower, name: str, config: VisionConfig) -> None:
        """A vision tower; what it is given is to be rounded to bf16 already."""
        _round(tower.embeddings.patch_embedding)
        _round(tower.embeddings.position_embedding)
        self.layers(tower.encoder, f"{name}.encoder", config)

    def layers(self, encoder: Encoder, name: str, config: EncoderSizes) -> None:
        """A tower's layers."""
        for i, layer in enumerate(encoder.layers):
            place = f"{name}.layers.{i}"
            attention = BFloat16Attention(config) if self._rounds_attention else Attention(config)
            matrix = self._weights.matrix(f"{place}.self_attn.qkv_proj.weight")
            rows = np.split(self._unpack(matrix), 3)
            biases = np.split(self._weights.values(f"{place}.self_attn.qkv_proj.bias"), 3)
            for part, weight_RC, bias_R in zip("qkv", rows, biases, strict=True):
                dense = PackedDense(matrix, weight_RC, torch.tensor(bias_R))
                attention.set_submodule(f"{part}_proj", dense)
            layer.set_submodule("self_attn", attention)
            for part in ("self_attn.out_proj", "mlp.fc1", "mlp.fc2"):
                layer.set_submodule(part, _dense(self._weights, self._unpack, f"{place}.{part}"))


def _exp2(x: Tensor) -> Tensor:
    """2^x by the polynomial of csrc/attention_encoder_bf16.h, or roundings would fall otherwise."""
    fraction = x - x.floor()
    p = torch.full_like(x, float.fromhex("0x1.3f96a4p-4"))
    for term in ("0x1.cefc4ep-3", "0x1.64444ap-1", "0x1.fff632p-1"):
        p = p * fraction + float.fromhex(term)
    return p * torch.exp2(x.floor())


def _dense(weights: EncoderWeights, unpack: Unpack, name: str) -> PackedDense:
    matrix = weights.matrix(f"{name}.weight")
    return PackedDense(matrix, unpack(matrix), torch.tensor(weights.values(f"{name}.bias")))


def _round(module: nn.Module) -> None:
    weight = module.get_parameter("weight")
    weight.data = weight.data.bfloat16().float()
