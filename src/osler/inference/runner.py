"""What the engine asks of a model.

Keys and values live in pages of `PAGE_TOKENS` positions, those of global layers in one pool of
pages and those of local layers in another. The engine decides which page belongs to whom; the
runner reads and writes where it is told to.

Shapes: L new positions, N images, C channels, S image side, T tokens an image,
D hidden_size, V vocabulary, R positions whose scores are wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from osler.models.config import MedGemmaConfig


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
    soft_TD: NDArray[np.float32] | None = None
    logits: int = 0


class Runner(Protocol):
    """One loaded model and the pages of its keys and values; for one engine at a time."""

    @property
    def config(self) -> MedGemmaConfig:
        """The model's sizes and special tokens."""

    def embed_images(self, pixels_NCSS: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Soft tokens (N, T, D) of images with values from -1 to 1."""

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

    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """Read the chunks, in one pass over the weights, each as it would be alone.

        Keys and values of the new positions are written into their pages before anything of them
        is read; a position may be written again, with another token, by a later call (a draft
        that was not taken). No two chunks of a call are of one sequence.

        Returns:
            Scores (R, V); R is the sum of `logits`, in the chunks' order.
        """
