"""What the engine asks of a model, and the model in torch that answers.

Keys and values live in pages of `PAGE_TOKENS` positions, those of global layers in one pool of
pages and those of local layers in another. The engine decides which page belongs to whom; the
runner reads and writes where it is told to.

Shapes: B batch, L new positions, N images, C channels, S image side, T tokens an image,
D hidden_size, V vocabulary, R positions whose scores are wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from osler.models.config import MedGemmaConfig
from osler.models.kv_cache import KVCache
from osler.models.medgemma import MedGemma


PAGE_TOKENS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """New positions of one sequence; a whole prompt, a part of one, or a token with drafts.

    An image's tokens see one another both ways, so all of them stand in one chunk.

    Attributes:
        ids: token ids; image tokens are `config.image_token_id`.
        start: position of the first id. What stands before it is in the pages.
        global_pages: entry i is the page of positions 64 i to 64 i + 63, for all positions up to
            the chunk's end.
        local_pages: the same for local layers; -1 where no new position sees that far back.
        soft_TD: embeddings of the image tokens among `ids`, (k * mm_tokens_per_image,
            hidden_size), as `embed_images` gave them; None where there are none.
        logits: for how many of the last positions scores are wanted; 0 for none.
    """

    ids: Sequence[int]
    start: int
    global_pages: Sequence[int]
    local_pages: Sequence[int]
    soft_TD: Tensor | None = None
    logits: int = 0


class Runner(Protocol):
    """One loaded model and the pages of its keys and values; for one engine at a time."""

    @property
    def config(self) -> MedGemmaConfig:
        """The model's sizes and special tokens."""

    def embed_images(self, pixels_NCSS: Tensor) -> Tensor:
        """Soft tokens (N, T, D) of images, float32, -1 to 1; they may stay on the device."""

    def page_bytes(self) -> tuple[int, int]:
        """Bytes of one global and of one local page."""

    def free_bytes(self) -> int:
        """Memory, where the pages are to be, that is free now."""

    def allocate(self, global_pages: int, local_pages: int) -> None:
        """Make room for so many pages, in place of those there were.

        Memory of a page that was never written need not be resident.
        """

    def copy_pages(
        self, global_pairs: Sequence[tuple[int, int]], local_pairs: Sequence[tuple[int, int]]
    ) -> None:
        """Copy pages: (from, to) for each kind. Later chunks overwrite the rest of the copies."""

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Read the chunks, in one pass over the weights, each as it would be alone.

        Keys and values of the new positions are written into their pages before anything of them
        is read; a position may be written again, with another token, by a later call (a draft
        that was not taken). No two chunks of a call are of one sequence.

        Returns:
            Scores, float32 (R, V), on the CPU; R is the sum of `logits`, in the chunks' order.
        """


class Cache(Protocol):
    """The positions that a runner has seen; made by it and given back to it."""

    def keep_rows(self, rows: Tensor) -> None:
        """Drop every sequence but `rows` (int64)."""


CacheT = TypeVar("CacheT", bound=Cache)


class CachedRunner(Protocol[CacheT]):
    """One loaded model, as `generate` still wants it; goes when the engine is there."""

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
