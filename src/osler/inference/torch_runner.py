"""The reference model in torch as a runner: numpy at its border, tensors behind it.

Shapes: L new positions, N images, C channels, S image side, T tokens an image, D hidden_size,
V vocabulary, R positions whose scores are wanted.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osler.inference.memory import free_memory_bytes
from osler.inference.runner import Chunk
from osler.models.config import FULL, SLIDING, MedGemmaConfig
from osler.models.kv_cache import KVCache, PageStore, Span
from osler.models.medgemma import MedGemma
from osler.models.pages import page_numbers


class TorchRunner:
    """The reference model, on whatever device and in whatever dtype its weights are."""

    def __init__(self, model: MedGemma) -> None:
        self.model = model
        self.allocate(0, 0)

    @property
    def config(self) -> MedGemmaConfig:
        """The model's sizes and special tokens."""
        return self.model.config

    @torch.inference_mode()
    def embed_images(self, pixels_NCSS: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Runner.embed_images`."""
        pixels = torch.as_tensor(pixels_NCSS, device=self._weight.device)
        return _array(self.model.embed_images(pixels))

    def page_bytes(self) -> tuple[int, int]:
        """See `Runner.page_bytes`."""
        text, size = self.config.text_config, self._weight.element_size()
        return size * page_numbers(text, FULL), size * page_numbers(text, SLIDING)

    def free_bytes(self) -> int:
        """See `Runner.free_bytes`."""
        if self._weight.is_cuda:
            return torch.cuda.mem_get_info(self._weight.device)[0]
        return free_memory_bytes()

    @torch.inference_mode()
    def allocate(self, global_pages: int, local_pages: int) -> None:
        """See `Runner.allocate`."""
        weight = self._weight
        self._store = PageStore(
            self.config.text_config,
            {FULL: global_pages, SLIDING: local_pages},
            dtype=weight.dtype,
            device=weight.device,
        )

    @torch.inference_mode()
    def copy_pages(
        self, global_pairs: Sequence[tuple[int, int]], local_pairs: Sequence[tuple[int, int]]
    ) -> None:
        """See `Runner.copy_pages`."""
        self._store.copy(FULL, global_pairs)
        self._store.copy(SLIDING, local_pairs)

    @torch.inference_mode()
    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """See `Runner.forward`."""
        device = self._weight.device
        soft = [chunk.soft_TD for chunk in chunks if chunk.soft_TD is not None]
        spans = [
            Span(
                start=chunk.start,
                length=len(chunk.ids),
                tables={FULL: chunk.global_pages, SLIDING: chunk.local_pages},
            )
            for chunk in chunks
        ]
        x_1LD = self.model.hidden(
            torch.tensor([[i for chunk in chunks for i in chunk.ids]], device=device),
            soft_NTD=torch.as_tensor(np.concatenate(soft)[None], device=device) if soft else None,
            cache=KVCache(self._store, spans),
        )
        ends = accumulate(len(chunk.ids) for chunk in chunks)
        rows = [
            row
            for chunk, end in zip(chunks, ends, strict=True)
            for row in range(end - chunk.logits, end)
        ]
        return _array(self.model.language_model.logits(x_1LD[0, rows]))

    @property
    def _weight(self) -> Tensor:
        return self.model.language_model.embed_tokens.weight


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
