"""Whole models into the file of packed weights, a few rows of a matrix at a time.

Shapes: R rows, C columns, U units, I columns of a unit.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from statistics import mode

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osler.errors import CheckpointError
from osler.models.config import MedGemmaConfig, MedSiglipConfig, TextConfig
from osler.native.blocks import Blocks
from osler.native.decoder_weights import decoder_parts
from osler.native.encoder_weights import EncoderTensor, encoder_tensors
from osler.native.formats import GROUPS, ROW_BLOCK, Matrix, has_row_scale, padded_rows
from osler.native.packed_file import PackedWriter
from osler.native.packing import Packer
from osler.native.quantize import Rounding, quantize_int4

FORMATS = ("int4", "int8", "bf16")  # that weights can be rounded to
FORMATS_KEPT = ("q8_0", "q4_0")  # that blocks keep

_SLAB_WEIGHTS = 2**21
_VISION = ("vision_tower.", "multi_modal_projector.")

# Told the number of weights that are done.
Progress = Callable[[int], object]


# A tensor of any float type, perhaps mapped from a file; or blocks, which are kept as they are.
Source = Tensor | Blocks


class ModelPacker:
    """Packs one model; made with what all its matrices share."""

    def __init__(
        self,
        writer: PackedWriter,
        packer: Packer,
        read: Callable[[str], Source],
        *,
        progress: Progress | None = None,
    ) -> None:
        """Prepare.

        Args:
            writer: of the file.
            packer: the library's.
            read: gives a tensor by its name in `models`.
            progress: called as weights are done.
        """
        self._writer = writer
        self._packer = packer
        self._read = read
        self._progress = progress
        self._done = 0
        self.rounded: list[str] = []
        """Matrices that are not exactly what they were, though no rounding was asked for."""

    def decoder(self, config: TextConfig, format: str, moments: Mapping[str, Tensor]) -> str:
        """Pack a decoder.

        Args:
            config: its sizes.
            format: of its matrices, one of `FORMATS`; Q8_0 and Q4_0 stay what they are.
            moments: of their inputs, for int4; a matrix that has none is rounded to the nearest.

        Returns:
            The format of most matrices.

        Raises:
            CheckpointError: a weight is not a number.
        """
        formats: list[str] = []
        for part in decoder_parts(config):
            sources = [self._read(name) for name in part.sources]
            if part.is_matrix:
                formats.append(self._matrix(part.name, sources, format, moments.get(part.name)))
            else:
                (norm,) = sources
                self._plain(part.name, _as_tensor(norm))
        return mode(formats)

    def encoder(
        self, config: MedGemmaConfig | MedSiglipConfig, names: Mapping[str, object], format: str
    ) -> str:
        """Pack a MedSigLIP, or a MedGemma's vision tower with its projector.

        Args:
            config: its sizes.
            names: of all tensors of the model.
            format: of its layers' matrices, "int8" or "bf16"; Q8_0 and Q4_0 stay what they are.

        Returns:
            The format of most of the layers' matrices.

        Raises:
            CheckpointError: a weight is not a number.
        """
        vision = config.vision_config
        assert vision is not None
        formats: list[str] = []
        own = [
            name
            for name in names
            if isinstance(config, MedSiglipConfig) or name.startswith(_VISION)
        ]
        for tensor in encoder_tensors(_State(self._read, own), heads=vision.num_attention_heads):
            if tensor.kind == "plain":
                self._plain(tensor.name, tensor.values)
                continue
            chosen = format if tensor.kind == "layer" else "bf16"
            became = self._matrix(tensor.name, self._sources(tensor), chosen, None, group=0)
            formats += [became] if tensor.kind == "layer" else []
        return mode(formats)

    def _sources(self, tensor: EncoderTensor) -> list[Source]:
        """What a layer's matrix is made of where that is blocks, else its values."""
        if tensor.kind == "layer":
            parts = "qkv" if tensor.name.endswith("qkv_proj.weight") else ("",)
            names = [tensor.name.replace("qkv_proj", f"{part}_proj") for part in parts]
            sources = [self._read(name) for name in names]
            if any(isinstance(source, Blocks) for source in sources):
                return sources
        return [tensor.values]

    def _plain(self, name: str, values: Tensor) -> None:
        table = values.detach().float().numpy()
        _must_be_finite(name, values)
        self._writer.values(name, table)
        self._advance(table.size)

    def _matrix(
        self,
        name: str,
        sources: list[Source],
        format: str,
        moment_UII: Tensor | None,
        group: int | None = None,
    ) -> str:
        """Write a matrix, and say in which format."""
        rows, cols = fused_rows([source.shape[0] for source in sources]), sources[0].shape[1]
        kinds = {source.format if isinstance(source, Blocks) else None for source in sources}
        blocks = kinds.pop() if len(kinds) == 1 else None
        if blocks is None:  # none are blocks, or not all alike
            sources = [_as_tensor(source) for source in sources]
        elif blocks in FORMATS_KEPT:
            format = blocks
        else:
            # No format of ours is as fine as Q6_K where it is fine; int8 comes close.
            format = "int8"
            self.rounded.append(name)
        if group is None or format != "int8":
            group = GROUPS[format]
        rounding = None
        if format == "int4":
            rounding = Rounding(moment_UII) if moment_UII is not None else Rounding.plain(cols)

        def parts() -> Iterator[Matrix]:
            for slab in slabs([_rows(source) for source in sources], cols):
                if blocks not in (None, *FORMATS_KEPT):
                    slab = Blocks(format=blocks, cols=cols, bytes_RB=slab).values_RC()
                yield self._packed(name, slab, format, cols, group, rounding)
                self._advance(slab.shape[0] * cols)

        self._writer.matrix(name, format, rows, cols, group, parts())
        return format

    def _packed(
        self,
        name: str,
        slab: Tensor,
        format: str,
        cols: int,
        group: int,
        rounding: Rounding | None,
    ) -> Matrix:
        if slab.dtype == torch.uint8:
            blocks: NDArray[np.uint8] = slab.flatten().numpy()
            return self._packer.pack_gguf(blocks, format, slab.shape[0], cols)
        _must_be_finite(name, slab)
        if rounding is not None:
            int4 = quantize_int4(slab.float(), rounding)
            return self._packer.pack_int4(
                int4.value_RC[:, :cols].contiguous().numpy(),
                int4.multiplier_RG[:, : -(-cols // 32)].contiguous().numpy(),
                int4.row_scale_R.numpy(),
            )
        if format == "bf16" and slab.dtype != torch.bfloat16 and name not in self.rounded:
            exact = slab.bfloat16().to(slab.dtype).equal(slab)
            self.rounded += [] if exact else [name]
        wide = slab if slab.dtype == torch.bfloat16 else slab.float()
        return self._packer.pack(wide.contiguous(), format, group=group)

    def _advance(self, weights: int) -> None:
        self._done += weights
        if self._progress is not None:
            self._progress(self._done)


def fused_rows(rows: list[int]) -> int:
    """Rows of a matrix made of one source, of gate and up projection, or of three.

    >>> fused_rows([17, 17])
    64
    """
    return 2 * padded_rows(rows[0]) if len(rows) == 2 else sum(rows)


def slabs(sources: list[Tensor], cols: int) -> Iterator[Tensor]:
    """Cut a fused matrix into slices of whole row blocks, each of which fits into the cache.

    Args:
        sources: (R, anything), all of one type; two are gate and up projection, whose row blocks
            take turns, more stand below one another.
        cols: weights of a row.
    """
    rows = fused_rows([len(source) for source in sources])
    step = max(1, _SLAB_WEIGHTS // cols // (2 * ROW_BLOCK)) * 2 * ROW_BLOCK
    for first in range(0, rows, step):
        last = min(first + step, rows)
        if len(sources) == 2:
            yield _in_turns(*(source[first // 2 : last // 2] for source in sources))
            continue
        parts, start = [], 0
        for source in sources:
            parts.append(source[max(first - start, 0) : max(last - start, 0)])
            start += len(source)
        yield parts[0] if len(parts) == 1 else torch.cat([part for part in parts if len(part)])


def packed_model_bytes(shapes: Mapping[str, tuple[int, ...]], format: str, tower: str) -> int:
    """About how large the file becomes, never less.

    Args:
        shapes: of all tensors of the model.
        format: of the decoder's matrices.
        tower: of the encoders' matrices.
    """
    bits = {"bf16": 16, "int8": 8, "int4": 8 * 2112 / 4096, "q8_0": 8.5, "q4_0": 4.5}
    total = 2**20
    for name, shape in shapes.items():
        in_decoder = name.startswith("language_model.")
        in_layer = in_decoder or ".encoder.layers." in name
        chosen = (format if in_decoder else tower) if in_layer else "bf16"
        if len(shape) < 2:
            total += 4 * math.prod(shape) + 512
            continue
        rows, cols = padded_rows(shape[0]) + ROW_BLOCK, math.prod(shape[1:])
        padded = -(-cols // 256) * 256
        total += int(rows * padded * bits[chosen] / 8) + 4 * rows * has_row_scale(chosen) + 1024
    return total


class _State(Mapping[str, Tensor]):
    """The tensors of a model as a mapping that reads them when asked."""

    def __init__(self, read: Callable[[str], Source], names: list[str]) -> None:
        self._read = read
        self._names = names

    def __getitem__(self, name: str) -> Tensor:
        return _as_tensor(self._read(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _rows(source: Source) -> Tensor:
    return source.bytes_RB if isinstance(source, Blocks) else source


def _as_tensor(source: Source) -> Tensor:
    return source.values_RC() if isinstance(source, Blocks) else source.detach()


def _in_turns(gate_RC: Tensor, up_RC: Tensor) -> Tensor:
    pad = (0, 0, 0, -len(gate_RC) % ROW_BLOCK)
    both = [
        torch.nn.functional.pad(rows, pad).unflatten(0, (-1, ROW_BLOCK))
        for rows in (gate_RC, up_RC)
    ]
    return torch.stack(both, dim=1).flatten(0, 2)


def _must_be_finite(name: str, values: Tensor) -> None:
    if not values.isfinite().all():
        raise CheckpointError(f"{name}: holds values that are not numbers")
