"""Runners without a model, whose pages hold the ids that were read.

What they say depends on what stands in the pages that they are pointed to, so a page that belongs
to another, or was given away too early, changes the answer or fails at once.

Shapes: N images, C channels, S image side, T tokens an image, D hidden_size, V vocabulary,
R positions whose scores are wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from osler.inference.runner import Chunk
from osler.models.config import MedGemmaConfig
from osler.models.pages import PAGE_TOKENS
from osler.testing.dummy import dummy_config

EMPTY = -1


@dataclass
class PageRunner:
    """Reads the ids before each position from the pages; a subclass says what comes next.

    Attributes:
        config: its sizes.
        memory_bytes: what it says is free.
        calls: the (start, ids, logits) of each chunk, for each forward call so far.
        images_at_once: images of each embedding call so far.
    """

    config: MedGemmaConfig = field(default_factory=dummy_config)
    memory_bytes: int = 1 << 30
    calls: list[list[tuple[int, list[int], int]]] = field(default_factory=list)
    images_at_once: list[int] = field(default_factory=list)

    def scores(self, history: list[int]) -> NDArray[np.float32]:
        """Scores (V,) of what follows these ids."""
        raise NotImplementedError

    def embed_images(self, pixels_NCSS: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean of each image, everywhere."""
        self.images_at_once.append(len(pixels_NCSS))
        shape = (self.config.mm_tokens_per_image, self.config.text_config.hidden_size)
        mean_N = pixels_NCSS.mean(axis=(1, 2, 3))
        return np.broadcast_to(mean_N[:, None, None], (len(mean_N), *shape))

    def page_bytes(self) -> tuple[int, int]:
        """A thousand bytes each."""
        return 1000, 1000

    def free_bytes(self) -> int:
        """As it was told."""
        return self.memory_bytes

    def allocate(self, global_pages: int, local_pages: int) -> None:
        """Empty pages."""
        self.global_pages = [[EMPTY] * PAGE_TOKENS for _ in range(global_pages)]
        self.local_pages = [[EMPTY] * PAGE_TOKENS for _ in range(local_pages)]

    def copy_pages(
        self, global_pairs: Sequence[tuple[int, int]], local_pairs: Sequence[tuple[int, int]]
    ) -> None:
        """Copy ids."""
        for pages, pairs in (
            (self.global_pages, global_pairs),
            (self.local_pages, local_pairs),
        ):
            for source, target in pairs:
                pages[target] = list(pages[source])

    def forward(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """Write the new ids, and say what follows those that are asked for."""
        self.calls.append([(chunk.start, list(chunk.ids), chunk.logits) for chunk in chunks])
        for chunk in chunks:
            self._write(chunk)
        rows = [
            self.scores(self._history(chunk)[: chunk.start + len(chunk.ids) - behind])
            for chunk in chunks
            for behind in reversed(range(chunk.logits))
        ]
        vocabulary = self.config.text_config.vocab_size
        return np.stack(rows) if rows else np.empty((0, vocabulary), np.float32)

    def _write(self, chunk: Chunk) -> None:
        """Store ids; for an image token a number made of its embedding, so that images differ."""
        image_token, soft = self.config.image_token_id, 0
        for place, token in enumerate(chunk.ids, start=chunk.start):
            if token == image_token:
                assert chunk.soft_TD is not None
                token = -2 - int(1e6 * abs(float(chunk.soft_TD[soft, 0])))
                soft += 1
            for pages, table in (
                (self.global_pages, chunk.global_pages),
                (self.local_pages, chunk.local_pages),
            ):
                pages[_page(table, place)][place % PAGE_TOKENS] = token
        assert soft == (0 if chunk.soft_TD is None else len(chunk.soft_TD))
        assert soft % self.config.mm_tokens_per_image == 0

    def _history(self, chunk: Chunk) -> list[int]:
        """All ids up to the chunk's end; both kinds of pages must agree where both are seen."""
        end = chunk.start + len(chunk.ids)
        history = [
            self.global_pages[_page(chunk.global_pages, place)][place % PAGE_TOKENS]
            for place in range(end)
        ]
        assert EMPTY not in history
        first_seen = max(0, chunk.start - self.config.text_config.sliding_window + 1)
        for place in range(first_seen, end):
            page = _page(chunk.local_pages, place)
            assert self.local_pages[page][place % PAGE_TOKENS] == history[place]
        return history


def _page(table: Sequence[int], place: int) -> int:
    page = table[place // PAGE_TOKENS]
    assert page >= 0
    return page


@dataclass
class ScriptedRunner(PageRunner):
    """Says `scripts[i]` after a prompt that begins with the id `MARK` + i, then the end token.

    Attributes:
        scripts: what it says.
    """

    MARK = 200

    scripts: Sequence[Sequence[int]] = ()
    _prompt_tokens: dict[int, int] = field(default_factory=dict)

    def scores(self, history: list[int]) -> NDArray[np.float32]:
        """One high value."""
        row = history[0] - self.MARK
        # The first scores that are asked for are those of the answer's first token.
        step = len(history) - self._prompt_tokens.setdefault(row, len(history))
        script = [*self.scripts[row], self.config.eos_token_ids[0]]
        logits_V = np.zeros(self.config.text_config.vocab_size, np.float32)
        logits_V[script[min(step, len(script) - 1)]] = 20.0
        return logits_V


@dataclass
class HashRunner(PageRunner):
    """Says what a random function of all ids before says: every id matters.

    Attributes:
        vocabulary: how many of the ids, from `first` on, it uses.
        first: the least of them.
    """

    vocabulary: int = 40
    first: int = 370

    def scores(self, history: list[int]) -> NDArray[np.float32]:
        """Random scores; those of other ids are low."""
        generator = np.random.default_rng(hash(tuple(history)) % 2**63)
        logits_V = np.full(self.config.text_config.vocab_size, -30.0, np.float32)
        drawn = generator.standard_normal(self.vocabulary, np.float32)
        logits_V[self.first : self.first + self.vocabulary] = 4 * drawn
        return logits_V
