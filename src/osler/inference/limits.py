"""How much an engine takes on, and how its memory is shared out."""

from dataclasses import dataclass

from osler.errors import MemoryLimitError, PromptError
from osler.models.config import MedGemmaConfig
from osler.models.pages import PAGE_TOKENS

# What a single request should find room for before others run beside it.
LONG_CONTEXT_TOKENS = 32_768


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of an engine.

    Attributes:
        cache_bytes: for keys and values; None for a quarter of what is free at the start.
        image_bytes: for embeddings of images that may come again.
        reserve_bytes: free memory below which no request is taken.
        max_running: requests that are worked on together.
        max_waiting: requests that wait.
        waiting_bytes: pixels of the requests that wait.
        step_tokens: positions read in one step; what a long prompt makes others wait for.
        draft_tokens: the most tokens that are guessed ahead in one step; 0 for none.

    Raises:
        PromptError: a value outside its range.
    """

    cache_bytes: int | None = None
    image_bytes: int = 1 << 28
    reserve_bytes: int = 1 << 28
    max_running: int = 16
    max_waiting: int = 256
    waiting_bytes: int = 1 << 30
    step_tokens: int = 512
    draft_tokens: int = 8

    def __post_init__(self) -> None:
        least = {
            "cache_bytes": 1,
            "image_bytes": 0,
            "reserve_bytes": 0,
            "max_running": 1,
            "max_waiting": 1,
            "waiting_bytes": 0,
            "step_tokens": PAGE_TOKENS,
            "draft_tokens": 0,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise PromptError(f"{name} is {value!r}; it must be at least {bound}")


def page_counts(
    config: MedGemmaConfig, page_bytes: tuple[int, int], free_bytes: int, limits: Limits
) -> tuple[int, int]:
    """Share the memory of keys and values out among global and local layers.

    Local pages are larger by far and needed for a window only. They get half of the bytes, for the
    windows of several requests and of what is known, but less where a long record would not find
    room in the other half.

    Args:
        config: sizes of the model.
        page_bytes: of one global and one local page.
        free_bytes: what the machine can give.
        limits: `cache_bytes`, `max_running` and `step_tokens` count here.

    Returns:
        Global and local pages.

    Raises:
        MemoryLimitError: not even one request has room.
    """
    text = config.text_config
    budget = free_bytes // 4 if limits.cache_bytes is None else limits.cache_bytes
    global_bytes, local_bytes = page_bytes
    # A request's window, its new positions, and a page at each end that is only partly needed.
    new = max(limits.step_tokens, config.mm_tokens_per_image)
    least_local = pages_for(text.sliding_window + new) + 2
    most_global = limits.max_running * pages_for(text.max_position_embeddings)
    if not local_bytes or not global_bytes:  # layers of one kind only: the other pages are empty
        count = min(most_global, budget // max(local_bytes, global_bytes))
        local, both = max(count, least_local), (count, max(count, least_local))
    else:
        context = min(LONG_CONTEXT_TOKENS, text.max_position_embeddings)
        spare = budget - (pages_for(context) + 1) * global_bytes
        local = max(least_local, min(most_global, budget // 2 // local_bytes, spare // local_bytes))
        count = min(most_global, (budget - local * local_bytes) // global_bytes)
        local = max(least_local, min(local, count))
        both = (count, local)
    if count < pages_for(new) + 1 or local * local_bytes > budget:
        needed = least_local * local_bytes + (pages_for(new) + 1) * global_bytes
        raise MemoryLimitError(
            f"the model's keys and values need {needed / 1e6:.0f} MB at least,"
            f" and have {budget / 1e6:.0f} MB"
        )
    return both


def pages_for(tokens: int) -> int:
    """Pages that hold so many positions."""
    return -(-tokens // PAGE_TOKENS)
