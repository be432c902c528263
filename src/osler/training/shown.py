"""Images as encoders that learn are shown them: varied anew, or as a resting tower left them.

Shapes: N images held, B images, C channels, S image side, P patches, D hidden_size,
K classes.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from osler.ingest.image_pack import PackedImage
from osler.models.medsiglip import MedSiglip
from osler.training.image_rows import drawn_variation
from osler.training.images import augment, resized


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Images as a batch shows them: pixels, or patches.

    Attributes:
        pixels_BCSS: -1 to 1.
        patches_BPD: what a resting tower gave, instead.
        guide_BPC: what a teacher sees in the places of the patches.
        taught_BK: its scores of the classes.
    """

    pixels_BCSS: Tensor | None = None
    patches_BPD: Tensor | None = None
    guide_BPC: Tensor | None = None
    taught_BK: Tensor | None = None


# Pixels (B, 3, S, S) to a map of them (B, C, any side, any side) and scores of classes (B, K).
Teacher = Callable[[Tensor], tuple[Tensor, Tensor]]
Show = Callable[[Sequence[tuple[int, random.Random]]], Shown]


def varied_images(
    items: Sequence[PackedImage], squares_N3SS: Tensor, side_px: int | None = None
) -> Show:
    """Show images varied anew each time.

    Args:
        items: of which sets the images are.
        squares_N3SS: uint8 images.
        side_px: of what is shown; None for that of the squares.
    """

    def show(chosen: Sequence[tuple[int, random.Random]]) -> Shown:
        pixels = [
            augment(squares_N3SS[i][None], drawn_variation(items[i].set_name, rng), side_px)
            for i, rng in chosen
        ]
        return Shown(pixels_BCSS=torch.cat(pixels))

    return show


def taught(show: Show, teacher: Teacher, grid: int) -> Show:
    """Show images with what a teacher makes of the same pixels.

    Args:
        show: images.
        teacher: is asked, and learns nothing.
        grid: patches along a side of the tower that is taught.
    """

    def show_taught(chosen: Sequence[tuple[int, random.Random]]) -> Shown:
        shown = show(chosen)
        assert shown.pixels_BCSS is not None
        with torch.no_grad():
            maps, scores_BK = teacher(shown.pixels_BCSS)
            fitting = F.interpolate(maps, size=(grid, grid), mode="bilinear", align_corners=False)
        return replace(
            shown, guide_BPC=fitting.flatten(2).transpose(1, 2).contiguous(), taught_BK=scores_BK
        )

    return show_taught


def kept_views(patches_NPD: Tensor, rows: Sequence[Sequence[int]]) -> Show:
    """Show one of the views of each image whose patches were computed before.

    Args:
        patches_NPD: of all views.
        rows: the views of each image.
    """

    def show(chosen: Sequence[tuple[int, random.Random]]) -> Shown:
        views = [rng.choice(rows[image]) for image, rng in chosen]
        return Shown(patches_BPD=patches_NPD[views].float())

    return show


def see(encoders: MedSiglip, shown: Shown) -> Tensor:
    """The vision tower's output (B, P, D) for images as they are shown, made to its size."""
    if shown.patches_BPD is not None:
        return shown.patches_BPD
    assert shown.pixels_BCSS is not None
    side_px = encoders.config.vision_config.image_size
    patches: Tensor = encoders.vision_model(resized(shown.pixels_BCSS, side_px))
    return patches
