"""What the engine asks of a model, and the model in torch that answers.

Shapes: B batch, L new positions, N images, C channels, S image side, T tokens an image,
D hidden_size, V vocabulary.
"""

from typing import Protocol, TypeVar

import torch
from torch import Tensor

from osler.models.config import MedGemmaConfig
from osler.models.kv_cache import KVCache
from osler.models.medgemma import MedGemma


class Cache(Protocol):
    """The positions that a runner has seen; made by it and given back to it."""

    def keep_rows(self, rows: Tensor) -> None:
        """Drop every sequence but `rows` (int64)."""


CacheT = TypeVar("CacheT", bound=Cache)


class Runner(Protocol[CacheT]):
    """One loaded model."""

    @property
    def config(self) -> MedGemmaConfig:
        """The model's sizes and special tokens."""

    def new_cache(self, batch_size: int) -> CacheT:
        """An empty cache for as many sequences."""

    def embed_images(self, pixels_NCSS: Tensor) -> Tensor:
        """Soft tokens (N, T, D) of images, float32, -1 to 1; they may stay on the device."""

    def forward(
        self,
        ids_BL: Tensor,
        *,
        cache: CacheT,
        soft_NTD: Tensor | None = None,
        attention_mask_BL: Tensor | None = None,
    ) -> Tensor:
        """Score what follows the last position, and remember the new positions.

        Args:
            ids_BL: int64, continuing what the cache holds.
            cache: extended by L positions.
            soft_NTD: the images among the new positions, in reading order over the batch.
            attention_mask_BL: 1 at real tokens, 0 at padding, which stands on the left.

        Returns:
            Logits, float32 (B, V), on the CPU.
        """


class TorchRunner:
    """The reference model, on whatever device and in whatever dtype its weights are."""

    def __init__(self, model: MedGemma) -> None:
        self.model = model

    @property
    def config(self) -> MedGemmaConfig:
        """The model's sizes and special tokens."""
        return self.model.config

    @torch.inference_mode()
    def new_cache(self, batch_size: int) -> KVCache:
        """An empty cache for as many sequences."""
        weight = self._weight
        return KVCache(
            self.config.text_config, batch_size, dtype=weight.dtype, device=weight.device
        )

    @torch.inference_mode()
    def embed_images(self, pixels_NCSS: Tensor) -> Tensor:
        """See `Runner.embed_images`."""
        return self.model.embed_images(pixels_NCSS.to(self._weight.device))

    @torch.inference_mode()
    def forward(
        self,
        ids_BL: Tensor,
        *,
        cache: KVCache,
        soft_NTD: Tensor | None = None,
        attention_mask_BL: Tensor | None = None,
    ) -> Tensor:
        """See `Runner.forward`."""
        device = self._weight.device
        logits_B1V: Tensor = self.model(
            ids_BL.to(device),
            soft_NTD=soft_NTD,
            attention_mask_BL=None if attention_mask_BL is None else attention_mask_BL.to(device),
            cache=cache,
            last_only=True,
        )
        return logits_B1V[:, 0].cpu()

    @property
    def _weight(self) -> Tensor:
        return self.model.language_model.embed_tokens.weight
