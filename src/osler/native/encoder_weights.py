"""The encoders' weights as the native engine takes them: their names, and which are fused.

Names are those of `models`, but for these:

    ...self_attn.qkv_proj     the rows of q_proj, k_proj and v_proj
    vision_head.probe_keys    (heads, hidden_size): the learned query times the keys' matrix
    vision_head.v_proj        the values' rows of attention.in_proj
    multi_modal_projector.mm_input_projection    transposed, as a linear layer has it

Only the layers' matrices take the format that is asked for. The rest is a few per cent of the
weights, hardly any of the time, and nearest to the pixels and to the result: it stays bf16.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osler.native.formats import Matrix
from osler.native.packing import Packer

ENCODER_FORMATS = ("bf16", "int8")


@dataclass(frozen=True, kw_only=True)
class EncoderTensor:
    """A tensor under the name that the native engine knows.

    Attributes:
        name: as at the top of this file.
        values: float32 or bfloat16, of one or two dimensions.
        kind: "layer" for a matrix in the format that is asked for, "bf16" for another matrix,
            "plain" for float32 values that no kernel multiplies.
    """

    name: str
    values: Tensor
    kind: Literal["layer", "bf16", "plain"]


class PackedEncoder:
    """An encoder's weights, packed in memory."""

    def __init__(
        self, state: Mapping[str, Tensor], packer: Packer, format: str, *, heads: int
    ) -> None:
        """Pack the weights of a module.

        Args:
            state: names and tensors, as `encoder_tensors` takes them.
            packer: the library's.
            format: of the layers' matrices, one of `ENCODER_FORMATS`.
            heads: attention heads of the vision tower.
        """
        self._matrices: dict[str, Matrix] = {}
        self._values: dict[str, NDArray[np.float32]] = {}
        for tensor in encoder_tensors(state, heads=heads):
            if tensor.kind == "plain":
                self._values[tensor.name] = np.array(tensor.values.float().numpy())
                continue
            chosen = format if tensor.kind == "layer" else "bf16"
            group = 0  # all columns share a scale
            self._matrices[tensor.name] = packer.pack(tensor.values, chosen, group=group)

    def matrix(self, name: str) -> Matrix:
        """See `encoder_structs.EncoderWeights.matrix`."""
        return self._matrices[name]

    def values(self, name: str) -> NDArray[np.float32]:
        """See `encoder_structs.EncoderWeights.values`."""
        return self._values[name]


def encoder_tensors(state: Mapping[str, Tensor], *, heads: int) -> Iterator[EncoderTensor]:
    """Rename, fuse and transpose the tensors of a MedSigLIP, or of MedGemma's vision tower.

    Args:
        state: names of `models` to tensors on the CPU; of a MedGemma, only those that begin with
            `vision_tower.` or `multi_modal_projector.`.
        heads: attention heads of the vision tower.

    Yields:
        Each tensor once.
    """
    for name, tensor in state.items():
        place = name.rpartition(".")[0]
        if ".self_attn." in name and not place.endswith("out_proj"):
            if place.endswith("q_proj"):
                parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                yield _tensor(name.replace("q_proj", "qkv_proj"), torch.cat(parts))
        elif name == "multi_modal_projector.mm_input_projection_weight":
            renamed = "multi_modal_projector.mm_input_projection.weight"
            yield _tensor(renamed, tensor.T.contiguous())
        elif name == "vision_head.probe":
            yield from _probe(state, heads)
        elif not place.endswith("vision_head.attention"):
            yield _tensor(name, tensor)


def _tensor(name: str, values: Tensor) -> EncoderTensor:
    values = values.detach()
    if values.dim() < 2:
        return EncoderTensor(name=name, values=values, kind="plain")
    in_layer = ".encoder.layers." in name
    # A convolution whose patches do not overlap is a matrix.
    return EncoderTensor(name=name, values=values.flatten(1), kind="layer" if in_layer else "bf16")


def _probe(state: Mapping[str, Tensor], heads: int) -> Iterator[EncoderTensor]:
    """The pooling head's attention, as far as it does not depend on the image.

    There is one query, always the same, so that q (W x + b) = (q W) x + q b, where q b is the same
    for all patches and a softmax does not see it.
    """
    weight = state["vision_head.attention.in_proj_weight"].float()
    bias = state["vision_head.attention.in_proj_bias"].float()
    size = weight.shape[1]
    probe = state["vision_head.probe"].float().reshape(size)
    query = (weight[:size] @ probe + bias[:size]).view(heads, 1, -1) * (size // heads) ** -0.5
    keys = (query @ weight[size : 2 * size].view(heads, -1, size))[:, 0]
    yield EncoderTensor(name="vision_head.probe_keys", values=keys.detach(), kind="plain")
    yield _tensor("vision_head.v_proj.weight", weight[2 * size :])
    yield _tensor("vision_head.v_proj.bias", bias[2 * size :])
