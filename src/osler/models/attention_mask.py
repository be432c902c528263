"""Which key each query sees in the Gemma 3 decoder.

A key is visible when it is causal or belongs to the same image, and, on local layers, when it lies
fewer than `window` positions behind the query. For the ids `a b I I I c d` (I: one image of three
tokens) and a window of 4 that is (x: visible)

            global              local
          a b I I I c d       a b I I I c d
        a x                 a x
        b x x               b x x
        I x x x x x         I x x x x x
        I x x x x x         I x x x x x
        I x x x x x         I   x x x x
        c x x x x x x       c     x x x x
        d x x x x x x x     d       x x x x

Shapes: B batch, L new positions (queries), T positions that can be seen (keys).

Source: Gemma 3 technical report (arXiv 2503.19786), section 2; MedGemma (arXiv
2507.05201), section 2.
"""

import torch
from torch import Tensor

NO_IMAGE = -1


def image_blocks(is_image_BL: Tensor, tokens_per_image: int) -> Tensor:
    """Number the image that each position belongs to.

    Args:
        is_image_BL: bool, True at image tokens.
        tokens_per_image: how many tokens make one image; all of them stand in the row.

    Returns:
        int64 (B, L): the image's ordinal in its row, or `NO_IMAGE` at text.

    >>> image_blocks(torch.tensor([[False, True, True, True, True]]), 2)
    tensor([[-1,  0,  0,  1,  1]])
    """
    ordinal_BL = is_image_BL.long().cumsum(dim=1) - 1
    return torch.where(is_image_BL, ordinal_BL // tokens_per_image, NO_IMAGE)


def attention_mask(
    query_index_L: Tensor,
    key_index_T: Tensor,
    real_BT: Tensor,
    query_block_BL: Tensor,
    key_block_BT: Tensor,
    window: int | None,
) -> Tensor:
    """Build the mask of one kind of layer from the definition above.

    Args:
        query_index_L: int64, place of each query in the sequence.
        key_index_T: int64, place of each key in the sequence; keys may stand in any order.
        real_BT: bool, False at keys that are padding or empty.
        query_block_BL: int64, from `image_blocks`.
        key_block_BT: int64, the same for the keys.
        window: positions that a local layer sees, or None for a global layer.

    Returns:
        bool (B, 1, L, T), True where the key is visible. A query always sees itself, so that
        padding rows have a softmax too.
    """
    behind_LT = query_index_L[:, None] - key_index_T[None, :]
    same_image_BLT = (query_block_BL[:, :, None] == key_block_BT[:, None, :]) & (
        query_block_BL[:, :, None] != NO_IMAGE
    )
    visible_BLT = ((behind_LT >= 0) | same_image_BLT) & real_BT[:, None, :]
    if window is not None:
        visible_BLT = visible_BLT & (behind_LT < window)
    return (visible_BLT | (behind_LT == 0))[:, None]
