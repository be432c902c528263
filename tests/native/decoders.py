"""Tiny native decoders beside the torch model that they are made of, and sequences in pages.

Prompts are drawn: a letter is a text token, four `I` an image.

Shapes: B batch, L positions, D hidden_size, V vocabulary, R rows, C columns.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osler.models.config import MedGemmaConfig
from osler.models.medgemma import MedGemma
from osler.native.decoder import ChunkStruct, Decoder
from osler.native.formats import Matrix
from osler.native.library import Library, Pool, library
from osler.native.packing import Packer
from osler.testing.models import randomise, tiny_medgemma
from osler.testing.quantised import pack_decoder

TEXT = "abcdefg"
ONE_IMAGE = "abIIIIcdef"
TWO_IMAGES = "abIIIIcdIIIIefg"
# The window is 8: the image lies across the first edge, and every edge after it cuts through it.
THREE_WINDOWS = "abcdefIIIIghijklmnopqrst"
# The images lie across the edges of a page, 64 positions.
TWO_PAGES = "abcdefghij" * 6 + "kIIIIIIIIlm" + "nopqrstuv" * 6 + "wIIIIx"


@functools.cache
def native(threads: int = 1) -> tuple[Library, Pool]:
    """The library and some threads, for which these models are too small to gain by them."""
    loaded = library()
    assert loaded is not None
    return loaded, loaded.pool(threads)


def model(config: MedGemmaConfig, seed: int = 0) -> MedGemma:
    """A torch model in float32 whose weights are exact in bf16."""
    made = MedGemma(config)
    randomise(made, seed)
    return made.bfloat16().float().eval()


def reader(made: MedGemma) -> Callable[[str], NDArray[np.float32]]:
    """Its tensors by name."""
    state = made.state_dict()
    return lambda name: state[name].float().numpy()


def decoder(
    made: MedGemma, format: str = "bf16", kv_format: str = "bf16", *, threads: int = 1
) -> Decoder:
    """A model's decoder, packed."""
    loaded, pool = native(threads)
    packer = Packer(loaded, pool)

    def pack(name: str, values_RC: NDArray[np.float32]) -> Matrix:
        return packer.pack(values_RC, format)

    weights = pack_decoder(made.config.text_config, reader(made), pack)
    return Decoder(made.config, weights, loaded, pool, kv_format=kv_format)


def drawn(row: str, config: MedGemmaConfig | None = None) -> list[int]:
    """The ids of a drawn prompt."""
    image = (config or tiny_medgemma()).image_token_id
    return [image if sign == "I" else ord(sign) - 50 for sign in row]


def soft_rows(ids: Sequence[int], made: MedGemma, seed: int = 1) -> Tensor:
    """Embeddings (N, T, D) for the image tokens of a prompt."""
    tokens = made.config.mm_tokens_per_image
    images = list(ids).count(made.config.image_token_id) // tokens
    generator = torch.Generator().manual_seed(seed)
    width = made.config.text_config.hidden_size
    return 3 * torch.randn(images, tokens, width, generator=generator)


@torch.inference_mode()
def expected(made: MedGemma, ids: Sequence[int], soft_NTD: Tensor | None = None) -> Tensor:
    """The torch model's scores (L, V) of a whole prompt."""
    soft = soft_rows(ids, made) if soft_NTD is None else soft_NTD
    logits: Tensor = made(torch.tensor([ids]), soft_NTD=soft if len(soft) else None)
    return logits[0]


class Tape:
    """One sequence that is given to a decoder bit by bit, in pages that lie anywhere."""

    def __init__(
        self,
        made: MedGemma,
        ids: Sequence[int],
        pages: Sequence[int],
        soft_NTD: Tensor | None = None,
    ) -> None:
        soft = soft_rows(ids, made) if soft_NTD is None else soft_NTD
        self._image = made.config.image_token_id
        self._window = made.config.text_config.sliding_window
        self._ids, self._pages = list(ids), list(pages)
        self._soft_SD = soft.flatten(0, 1).numpy()
        self.done = 0

    def next(self, count: int, logits: int | None = None) -> ChunkStruct:
        """The next so many positions; scores of all unless `logits` says of how many."""
        start, end = self.done, self.done + count
        self.done = end
        ids = self._ids[start:end]
        before, among = self._ids[:start].count(self._image), ids.count(self._image)
        gone = max(0, start - self._window + 1) // 64
        return ChunkStruct.of(
            ids,
            start=start,
            global_pages=self._pages,
            local_pages=[-1] * gone + self._pages[gone:],
            soft_SD=self._soft_SD[before : before + among] if among else None,
            logits=count if logits is None else logits,
        )


def whole(decoder: Decoder, made: MedGemma, ids: Sequence[int]) -> Tensor:
    """The native scores (L, V) of a whole prompt."""
    pages = -(-len(ids) // 64)
    decoder.allocate(pages, pages)
    tape = Tape(made, ids, range(pages - 1, -1, -1))
    return torch.from_numpy(decoder.forward([tape.next(len(ids))]))


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference as a share of the largest score."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
