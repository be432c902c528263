"""The native decoder as a runner: what the engine asks, answered by C on the CPU.

Shapes: N images, C channels, S image side, T tokens an image, D hidden_size, V vocabulary,
R positions whose scores are wanted.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from osler.inference.memory import free_memory_bytes
from osler.inference.runner import Chunk
from osler.models.config import MedGemmaConfig
from osler.native.decoder import ChunkStruct, Decoder

EmbedImages = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class NativeRunner:
    """A native decoder and whatever embeds its images."""

    def __init__(
        self, config: MedGemmaConfig, decoder: Decoder, embed_images: EmbedImages | None = None
    ) -> None:
        """Put both together.

        Args:
            config: of the model.
            decoder: with its weights.
            embed_images: pixels (N, C, S, S) to soft tokens (N, T, D); None for a model of text.
        """
        self._config = config
        self._decoder = decoder
        self._embed_images = embed_images

    @property
    def config(self) -> MedGemmaConfig:
        """The model's sizes and special tokens."""
        return self._config

    def embed_images(self, pixels_NCSS: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Runner.embed_images`.

        Raises:
            ValueError: the model has no vision tower.
        """
        if self._embed_images is None:
            raise ValueError("this model reads text only")
        return self._embed_images(pixels_NCSS)

    def page_bytes(self) -> tuple[int, int]:
        """See `Runner.page_bytes`."""
        return self._decoder.page_bytes()

    def free_bytes(self) -> int:
        """See `Runner.free_bytes`."""
        return free_memory_bytes()

    def allocate(self, global_pages: int, local_pages: int) -> None:
        """See `Runner.allocate`."""
        self._decoder.allocate(global_pages, local_pages)

    def copy_pages(
        self, global_pairs: Sequence[tuple[int, int]], local_pairs: Sequence[tuple[int, int]]
    ) -> None:
        """See `Runner.copy_pages`."""
        for source, target in global_pairs:
            self._decoder.copy_page(source, target, is_global=True)
        for source, target in local_pairs:
            self._decoder.copy_page(source, target, is_global=False)

    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """See `Runner.forward`."""
        structs = [
            ChunkStruct.of(
                chunk.ids,
                start=chunk.start,
                global_pages=chunk.global_pages,
                local_pages=chunk.local_pages,
                soft_SD=chunk.soft_TD,
                logits=chunk.logits,
            )
            for chunk in chunks
        ]
        return self._decoder.forward(structs)
