"""Keys and values of the positions already seen, in pages.

A page holds `PAGE_TOKENS` positions of all layers of one kind, global or local. Rotary embedding is
applied before storing. Who owns which page is decided outside; here a `Span` says for a run of new
positions where everything before it lies. Local layers read no page that has left their window, so
its owner can take it back: they hold about a window, whatever the length.

Positions of several sequences go through the decoder as one row, one `Span` behind the other, so
that each weight is read once for all; only here each looks at its own pages.

Shapes: P pages, L new positions of a span, R those of all spans in a row, T positions seen,
N query heads, K key-value heads, H head size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from osler.models.attention import attend
from osler.models.attention_mask import NO_IMAGE, attention_mask
from osler.models.config import FULL, SLIDING, TextConfig
from osler.models.pages import PAGE_TOKENS


class PageStore:
    """The memory of all pages.

    Attributes:
        config: sizes of the decoder.
        pages: kind of layer to (P, layers of the kind, 2, K, `PAGE_TOKENS`, H), keys and values.
    """

    def __init__(
        self,
        config: TextConfig,
        counts: Mapping[str, int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make room.

        Args:
            config: sizes of the decoder.
            counts: pages of each kind, `FULL` and `SLIDING`.
            dtype: of the keys and values.
            device: where they are.
        """
        self.config = config
        page = (2, config.num_key_value_heads, PAGE_TOKENS, config.head_dim)
        self.pages = {
            kind: torch.empty(
                (counts[kind], config.layer_types.count(kind), *page), dtype=dtype, device=device
            )
            for kind in (FULL, SLIDING)
        }

    def copy(self, kind: str, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy pages of a kind; pairs are (from, to)."""
        for source, target in pairs:
            self.pages[kind][target] = self.pages[kind][source]


@dataclass(frozen=True, kw_only=True)
class Span:
    """New positions of one sequence.

    Attributes:
        start: how many positions stand before them.
        length: how many they are.
        tables: kind of layer to its pages; entry i holds positions 64 i to 64 i + 63. Entries of
            local layers behind the window of the first new position are not looked at.
    """

    start: int
    length: int
    tables: Mapping[str, Sequence[int]]

    @property
    def end(self) -> int:
        """The position behind the last."""
        return self.start + self.length


class LayerCache:
    """One layer's part of a `KVCache`."""

    def __init__(self, pages_P2KTH: Tensor, places: "list[_Place]") -> None:
        self._pages_P2KTH = pages_P2KTH
        self._places = places

    def attend(self, q_1NRH: Tensor, k_1KRH: Tensor, v_1KRH: Tensor, scale: float) -> Tensor:
        """Store the new keys and values, and let the queries of each span read its own.

        Returns:
            (1, N, R, H).
        """
        lengths = [len(place.slot_L) for place in self._places]
        new_2KRH = torch.cat([k_1KRH, v_1KRH])
        outputs = []
        for place, q_1NLH, new_2KLH in zip(
            self._places, q_1NRH.split(lengths, dim=2), new_2KRH.split(lengths, dim=2), strict=True
        ):
            self._pages_P2KTH[place.page_L, :, :, place.slot_L] = new_2KLH.permute(2, 0, 1, 3)
            # (pages, 2, K, 64, H) to (2, K, positions, H)
            seen_2KTH = self._pages_P2KTH[place.table].movedim(0, 2).flatten(2, 3)
            keys, values = seen_2KTH[:, None, :, place.seen]
            outputs.append(attend(q_1NLH, keys, values, place.mask, scale))
        return torch.cat(outputs, dim=2)


class KVCache:
    """The spans of one call, over a store.

    Attributes:
        layers: one `LayerCache` a layer; to be used after `see`.
    """

    def __init__(self, store: PageStore, spans: Sequence[Span]) -> None:
        self._config = store.config
        self._device = store.pages[FULL].device
        self._spans = spans
        self._places: dict[str, list[_Place]] = {FULL: [], SLIDING: []}
        kinds = store.config.layer_types
        self.layers = [
            LayerCache(store.pages[kind][:, kinds[:layer].count(kind)], self._places[kind])
            for layer, kind in enumerate(kinds)
        ]

    @property
    def position_1R(self) -> Tensor:
        """int64, the place of each new position in its own sequence."""
        places = [torch.arange(s.start, s.end, device=self._device) for s in self._spans]
        return torch.cat(places)[None]

    def see(self, block_1R: Tensor) -> None:
        """Find out what each new position sees, before the layers run.

        Args:
            block_1R: int64, the image of each new position, see `image_blocks`.
        """
        blocks = block_1R.split([span.length for span in self._spans], dim=1)
        for kind, window in ((FULL, None), (SLIDING, self._config.sliding_window)):
            self._places[kind][:] = [
                self._place(span, span.tables[kind], block_1L, window)
                for span, block_1L in zip(self._spans, blocks, strict=True)
            ]

    def _place(
        self, span: Span, pages: Sequence[int], block_1L: Tensor, window: int | None
    ) -> "_Place":
        first = 0 if window is None else max(0, span.start - window + 1)
        first_page = first // PAGE_TOKENS
        table = torch.tensor(
            pages[first_page : (span.end - 1) // PAGE_TOKENS + 1], device=self._device
        )
        query_L = torch.arange(span.start, span.end, device=self._device)
        offset = first_page * PAGE_TOKENS
        return _Place(
            table=table,
            seen=slice(first - offset, span.end - offset),
            page_L=table[query_L // PAGE_TOKENS - first_page],
            slot_L=query_L % PAGE_TOKENS,
            mask=_mask(query_L, first, block_1L, window),
        )


class _Place(NamedTuple):
    """Where a span's keys and values are, for one kind of layer.

    Attributes:
        table: int64, the pages that are read or written, in order.
        seen: which of the positions in these pages some query sees.
        page_L: int64, the page of each new position.
        slot_L: int64, its place in that page.
        mask: see `attend`.
    """

    table: Tensor
    seen: slice
    page_L: Tensor
    slot_L: Tensor
    mask: Tensor | None


def _mask(query_L: Tensor, first: int, block_1L: Tensor, window: int | None) -> Tensor | None:
    """What each new position sees from `first` on; None where `attend` need not be told."""
    start, new = int(query_L[0]), len(query_L)
    no_image = bool((block_1L == NO_IMAGE).all())
    if new == 1 or (start == 0 and no_image and (window is None or new <= window)):
        return None
    key_T = torch.arange(first, start + new, device=query_L.device)
    # No image lies across a span's beginning, so what stands before it is seen causally.
    key_block_1T = F.pad(block_1L, (start - first, 0), value=NO_IMAGE)
    real_1T = torch.ones_like(key_block_1T, dtype=torch.bool)
    return attention_mask(query_L, key_T, real_1T, block_1L, key_block_1T, window)
