"""What the decoder's matrices are given: the second moments of their inputs over some text.

Shapes: L positions, C columns, U units, I columns of a unit.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from osler.models.medgemma import MedGemma
from osler.native.decoder_weights import EMBEDDING, layer_name
from osler.native.quantize import UNIT


@torch.inference_mode()
def input_moments(model: MedGemma, sequences: Iterable[list[int]]) -> dict[str, Tensor]:
    """Run a model over some text and watch what goes into its matrices.

    Args:
        model: in any type; its weights may be mapped from a file.
        sequences: ids of each text.

    Returns:
        Name of a matrix, as `decoder_parts` has it, to the mean of the products of every two
        inputs of a unit of 256, float32 (U, 256, 256). For the embedding, which is also the head,
        they are the head's.
    """
    sums: dict[str, Tensor] = {}
    positions = 0
    with _watched(model, sums):
        for ids in sequences:
            model.hidden(torch.tensor([ids]))
            positions += len(ids)
    return {name: total.div_(positions) for name, total in sums.items()}


@contextmanager
def _watched(model: MedGemma, sums: dict[str, Tensor]) -> Iterator[None]:
    decoder = model.language_model
    watched: list[tuple[nn.Module, str]] = []
    for index, layer in enumerate(decoder.layers):
        watched += [
            (layer.get_submodule(module), layer_name(index, name))
            for module, name in (
                # One stands for all that are given the same.
                ("self_attn.q_proj", "self_attn.qkv_proj"),
                ("self_attn.o_proj", "self_attn.o_proj"),
                ("mlp.gate_proj", "mlp.gate_up_proj"),
                ("mlp.down_proj", "mlp.down_proj"),
            )
        ]

    def add(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        _add(sums, name, inputs[0])

    def add_head(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        _add(sums, EMBEDDING, output)

    handles = [module.register_forward_pre_hook(partial(add, name)) for module, name in watched]
    handles.append(decoder.norm.register_forward_hook(add_head))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add(sums: dict[str, Tensor], name: str, x_BLC: Tensor) -> None:
    x_LC = x_BLC.flatten(0, -2).float()
    padded = nn.functional.pad(x_LC, (0, -x_LC.shape[1] % UNIT))
    x_ULI = padded.unflatten(1, (-1, UNIT)).transpose(0, 1)
    moment_UII = x_ULI.transpose(1, 2) @ x_ULI
    sums[name] = sums[name] + moment_UII if name in sums else moment_UII
