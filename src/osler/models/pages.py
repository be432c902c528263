"""Sizes of the pages that keys and values lie in, whoever computes them."""

from osler.models.config import TextConfig

PAGE_TOKENS = 64


def page_numbers(config: TextConfig, kind: str) -> int:
    """Count the numbers that one page of this kind of layer holds."""
    layers = config.layer_types.count(kind)
    return layers * 2 * config.num_key_value_heads * PAGE_TOKENS * config.head_dim
