"""Keys and values of the positions already seen.

Global layers keep all positions; local layers keep a ring of `sliding_window` positions. Rotary
embedding is applied before storing, so a ring needs no order, only each entry's place in the
sequence. All rows of a batch have the same places (they are padded on the left).

Shapes: B batch, L new positions, T positions held, K key-value heads, H head size.
"""

import torch
from torch import Tensor

from osler.models.attention_mask import NO_IMAGE
from osler.models.config import SLIDING, TextConfig


class LayerCache:
    """One layer's keys and values; `window` None keeps everything."""

    def __init__(self, window: int | None, keys_BKTH: Tensor) -> None:
        self.window = window
        self.keys_BKTH = keys_BKTH
        self.values_BKTH = torch.empty_like(keys_BKTH)

    def append(self, length: int, keys_BKLH: Tensor, values_BKLH: Tensor) -> tuple[Tensor, Tensor]:
        """Store new entries and return those to attend to, ordered as `KVCache.key_indices`.

        Args:
            length: positions stored before these.
            keys_BKLH: new keys, rotated.
            values_BKLH: new values.
        """
        new = keys_BKLH.shape[2]
        if self.window is None:
            self._grow(length + new)
            self.keys_BKTH[:, :, length : length + new] = keys_BKLH
            self.values_BKTH[:, :, length : length + new] = values_BKLH
            return self.keys_BKTH[:, :, : length + new], self.values_BKTH[:, :, : length + new]
        if new == 1 and length < self.window:
            self._grow(length + 1)
        if new == 1:
            slot = length % self.window
            self.keys_BKTH[:, :, slot] = keys_BKLH[:, :, 0]
            self.values_BKTH[:, :, slot] = values_BKLH[:, :, 0]
            held = min(length + 1, self.window)
            return self.keys_BKTH[:, :, :held], self.values_BKTH[:, :, :held]
        held = min(length, self.window)
        seen_keys = torch.cat([self.keys_BKTH[:, :, :held], keys_BKLH], dim=2)
        seen_values = torch.cat([self.values_BKTH[:, :, :held], values_BKLH], dim=2)
        kept = min(new, self.window)
        self._grow(min(length + new, self.window))
        slots = torch.arange(length + new - kept, length + new, device=keys_BKLH.device)
        self.keys_BKTH[:, :, slots % self.window] = keys_BKLH[:, :, new - kept :]
        self.values_BKTH[:, :, slots % self.window] = values_BKLH[:, :, new - kept :]
        return seen_keys, seen_values

    def keep_rows(self, rows: Tensor) -> None:
        """Drop every row but `rows` (int64)."""
        self.keys_BKTH = self.keys_BKTH[rows]
        self.values_BKTH = self.values_BKTH[rows]

    def _grow(self, needed: int) -> None:
        """Make room for `needed` positions, doubling so that decoding copies seldom."""
        held = self.keys_BKTH.shape[2]
        if needed <= held:
            return
        capacity = max(needed, 2 * held)
        if self.window is not None:
            capacity = min(capacity, self.window)
        shape = (*self.keys_BKTH.shape[:2], capacity, self.keys_BKTH.shape[3])
        for name in ("keys_BKTH", "values_BKTH"):
            old = getattr(self, name)
            grown = old.new_empty(shape)
            grown[:, :, :held] = old
            setattr(self, name, grown)


class KVCache:
    """The cache of a whole decoder, and what the mask needs to know of the positions in it.

    Attributes:
        length: positions seen so far, the same for all rows.
        layers: one `LayerCache` a layer.
        next_position_B: int64, rotary position of each row's next real token.
        image_tokens_B: int64, image tokens seen in each row.
    """

    def __init__(
        self,
        config: TextConfig,
        batch_size: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.window = config.sliding_window
        self.length = 0
        empty = torch.empty(
            (batch_size, config.num_key_value_heads, 0, config.head_dim), dtype=dtype, device=device
        )
        self.layers = [
            LayerCache(self.window if kind == SLIDING else None, empty)
            for kind in config.layer_types
        ]
        self.next_position_B = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.image_tokens_B = torch.zeros(batch_size, dtype=torch.long, device=device)
        self._real_BT = torch.zeros((batch_size, 0), dtype=torch.bool, device=device)
        self._block_BT = torch.full((batch_size, 0), NO_IMAGE, dtype=torch.long, device=device)

    @property
    def size_bytes(self) -> int:
        """Memory held by keys and values."""
        return sum(
            2 * layer.keys_BKTH.numel() * layer.keys_BKTH.element_size() for layer in self.layers
        )

    def remember(self, real_BL: Tensor, block_BL: Tensor) -> None:
        """Note which new positions are real and their images, before the layers run."""
        self._real_BT = torch.cat([self._real_BT, real_BL], dim=1)
        self._block_BT = torch.cat([self._block_BT, block_BL], dim=1)
        self.next_position_B = self.next_position_B + real_BL.sum(dim=1)
        self.image_tokens_B = self.image_tokens_B + (block_BL != NO_IMAGE).sum(dim=1)

    def advance(self, new: int) -> None:
        """Count `new` positions as stored, after the layers ran."""
        self.length += new

    def key_indices(self, new: int, window: int | None) -> Tensor:
        """Places in the sequence of the keys that a layer attends to, in `append`'s order.

        Args:
            new: positions of the current call.
            window: the layer's window, or None for a global layer.

        Returns:
            int64 (T,).
        """
        device = self._real_BT.device
        new_indices = torch.arange(self.length, self.length + new, device=device)
        if window is None:
            return torch.arange(self.length + new, device=device)
        held = min(self.length, window)
        if new == 1 and self.length < window:
            return torch.arange(self.length + 1, device=device)
        ring = torch.arange(self.length - held, self.length, device=device)
        ordered = torch.empty_like(ring)
        ordered[ring % window if held == window else ring] = ring
        if new == 1:
            ordered[self.length % window] = self.length
            return ordered
        return torch.cat([ordered, new_indices])

    def real(self, indices_T: Tensor) -> Tensor:
        """bool (B, T): which of these places hold a real token."""
        return self._real_BT[:, indices_T]

    def blocks(self, indices_T: Tensor) -> Tensor:
        """int64 (B, T): the image of each of these places, see `image_blocks`."""
        return self._block_BT[:, indices_T]

    def keep_rows(self, rows: Tensor) -> None:
        """Drop every sequence but `rows` (int64), for those that have ended."""
        for layer in self.layers:
            layer.keep_rows(rows)
        self.next_position_B = self.next_position_B[rows]
        self.image_tokens_B = self.image_tokens_B[rows]
        self._real_BT = self._real_BT[rows]
        self._block_BT = self._block_BT[rows]
