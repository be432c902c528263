"""The names that weights have in files, as one table read in both directions.

A layout says, for each part of a model, how its keys begin in our modules and in the file. The head
is tied with the embedding, so files need not hold it; `head` is its name where one does.
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class KeyLayout:
    """One way of naming weights: pairs of (our prefix, the file's prefix)."""

    prefixes: tuple[tuple[str, str], ...]
    head: str | None = None

    def in_file(self, key: str) -> str:
        """The file's name of one of our keys; what the table does not know keeps its name.

        >>> MEDGEMMA_RELEASED.in_file("language_model.norm.weight")
        'language_model.model.norm.weight'
        """
        for ours, theirs in self.prefixes:
            if key.startswith(ours):
                return theirs + key.removeprefix(ours)
        return key


def _medgemma(language_model: str, vision_tower: str, projector: str, head: str) -> KeyLayout:
    return KeyLayout(
        prefixes=(
            ("language_model.", language_model),
            ("vision_tower.", vision_tower),
            ("multi_modal_projector.", projector),
        ),
        head=head,
    )


# What Google released and transformers 4 saves. Every reader of Gemma 3 knows it, so we save it.
MEDGEMMA_RELEASED = _medgemma(
    "language_model.model.",
    "vision_tower.vision_model.",
    "multi_modal_projector.",
    "language_model.lm_head.weight",
)
# The module tree of transformers since 4.52, as exporters that take `state_dict()` write it.
MEDGEMMA_MODULES = _medgemma(
    "model.language_model.",
    "model.vision_tower.vision_model.",
    "model.multi_modal_projector.",
    "lm_head.weight",
)
MEDGEMMA_TEXT = KeyLayout(prefixes=(("language_model.", "model."),), head="lm_head.weight")

MEDGEMMA_LAYOUTS = (
    MEDGEMMA_RELEASED,
    # transformers 5 saves
    _medgemma(
        "language_model.model.",
        "vision_tower.",
        "multi_modal_projector.",
        "language_model.lm_head.weight",
    ),
    MEDGEMMA_MODULES,
    # the same since 5
    _medgemma(
        "model.language_model.",
        "model.vision_tower.",
        "model.multi_modal_projector.",
        "lm_head.weight",
    ),
    MEDGEMMA_TEXT,
)

# All versions agree; the pooling head stands outside the tower in our modules.
MEDSIGLIP = KeyLayout(prefixes=(("vision_head.", "vision_model.head."),))


def closest(
    layouts: Collection[KeyLayout], keys: Collection[str], stored: Collection[str]
) -> KeyLayout:
    """The layout that finds most of our `keys` among those `stored`; the first among equals."""
    return max(layouts, key=lambda layout: sum(layout.in_file(key) in stored for key in keys))
