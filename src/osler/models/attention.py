"""Grouped-query attention, where the projections are done.

Shapes: B batch, L queries, T keys, N query heads, K key-value heads, H head size.
"""

import torch.nn.functional as F
from torch import Tensor


def attend(
    q_BNLH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Let each query read the values of the keys that it sees.

    Args:
        q_BNLH: queries, rotated.
        k_BKTH: keys, rotated; N is a multiple of K.
        v_BKTH: values.
        mask: bool (B, 1, L, T), True where a key is seen; None where the queries are the last L
            of the T positions and plain causal attention is meant, with L 1 or T.
        scale: what scores are multiplied by.

    Returns:
        (B, N, L, H).
    """
    groups = q_BNLH.shape[1] // k_BKTH.shape[1]
    return F.scaled_dot_product_attention(
        q_BNLH,
        k_BKTH.repeat_interleave(groups, dim=1),
        v_BKTH.repeat_interleave(groups, dim=1),
        attn_mask=mask,
        is_causal=mask is None and q_BNLH.shape[2] > 1,
        scale=scale,
    )
