"""What the engine asks of a model, and the model in torch that answers.

Keys and values live in pages of `PAGE_TOKENS` positions, those of global layers in one pool of
pages and those of local layers in another. The engine decides which page belongs to whom; the
runner reads and writes where it is told to.

Shapes: L new positions, N images, C channels, S image side, T tokens an image,
D hidden_size, V vocabulary, R positions whose scores are wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from osler.inference.memory import free_memory_bytes
from osler.models.config import FULL, SLIDING, MedGemmaConfig
from osler.models.kv_cache import PAGE_TOKENS, KVCache, PageStore, Span, page_numbers
from osler.models.medgemma import MedGemma

__all__ = ["PAGE_TOKENS", "Chunk", "Runner", "TorchRunner"]


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
    def embed_images(self, pixels_NCSS: Tensor) -> Tensor:
        """See `Runner.embed_images`."""
        return self.model.embed_images(pixels_NCSS.to(self._weight.device))

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
    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
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
            soft_NTD=torch.cat(soft)[None].to(device) if soft else None,
            cache=KVCache(self._store, spans),
        )
        ends = accumulate(len(chunk.ids) for chunk in chunks)
        rows = [
            row
            for chunk, end in zip(chunks, ends, strict=True)
            for row in range(end - chunk.logits, end)
        ]
        return self.model.language_model.logits(x_1LD[0, rows]).cpu()

    @property
    def _weight(self) -> Tensor:
        return self.model.language_model.embed_tokens.weight
