"""Packed models on the native engine, with the faces of those in torch.

Shapes: B batch, L positions, N images, C channels, S image side, V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray

from osler.inference.native_runner import NativeRunner
from osler.inference.runner import Chunk
from osler.models.config import MedGemmaConfig
from osler.models.pages import PAGE_TOKENS
from osler.native.decoder import Decoder
from osler.native.decoder_weights import decoder_parts
from osler.native.encoder import NativeVision
from osler.native.library import Library
from osler.native.packed_file import PackedFile


class NativeMedGemma:
    """A packed MedGemma.

    Attributes:
        config: sizes and special tokens.
        file: its weights.
        runner: for one engine.
    """

    def __init__(self, config: MedGemmaConfig, file: PackedFile, library: Library) -> None:
        """Put the file's tensors in their places; nothing is copied.

        Args:
            config: of the model.
            file: its weights.
            library: the kernels.

        Raises:
            CheckpointError: the file lacks a tensor.
            ValueError: a tensor of another shape than the configuration's.
            MemoryError: not enough memory to work in.
        """
        self.config = config
        self.file = file
        self._library = library
        self._weights = {
            part.name: file.matrix(part.name) if part.is_matrix else file.values(part.name)
            for part in decoder_parts(config.text_config)
        }
        self.runner = self._new_runner()

    def logits(
        self,
        ids_BL: NDArray[np.int64],
        *,
        pixels_NCSS: NDArray[np.float32] | None = None,
        attention_mask_BL: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """Score the next token at every position; arguments as `MedGemma.forward`.

        Returns:
            (B, L, V), 0 at padding.

        Raises:
            ValueError: image tokens and images do not match in number.
        """
        runner = self._new_runner()
        pages = -(-ids_BL.shape[1] // PAGE_TOKENS)
        runner.allocate(pages, pages)
        soft_TD = None
        image_tokens = int((ids_BL == self.config.image_token_id).sum())
        if pixels_NCSS is not None:
            soft_NTD = runner.embed_images(pixels_NCSS)
            soft_TD = soft_NTD.reshape(-1, soft_NTD.shape[-1])
        if image_tokens != (given := 0 if soft_TD is None else len(soft_TD)):
            raise ValueError(f"{image_tokens} image tokens for {given} image embeddings")
        logits_BLV = np.zeros((*ids_BL.shape, self.config.text_config.vocab_size), np.float32)
        used = 0
        for row, ids_L in enumerate(ids_BL):
            real_L = np.ones(len(ids_L), bool)
            if attention_mask_BL is not None:
                real_L = attention_mask_BL[row]
            ids: list[int] = ids_L[real_L].tolist()
            if not ids:
                continue
            count = ids.count(self.config.image_token_id)
            chunk = Chunk(
                ids=ids,
                start=0,
                global_pages=range(pages),
                local_pages=range(pages),
                soft_TD=None if soft_TD is None or not count else soft_TD[used : used + count],
                logits=len(ids),
            )
            logits_BLV[row, real_L] = runner.forward([chunk])
            used += count
        return logits_BLV

    def _new_runner(self) -> NativeRunner:
        """A runner with threads, pages and room to work of its own."""
        pool = self._library.pool()
        decoder = Decoder(self.config, self._weights, self._library, pool)
        if self.config.vision_config is None:
            return NativeRunner(self.config, decoder)
        vision = NativeVision(self.config, self.file, self._library, pool)
        return NativeRunner(self.config, decoder, vision.embed_images)
