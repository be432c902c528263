"""Images as encoders that learn are shown them: varied anew, or as a resting tower left them.

Shapes: N images held, B images, C channels, S image side, P patches, D hidden_size.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osler.ingest.image_pack import PackedImage
from osler.models.medsiglip import MedSiglip
from osler.training.image_rows import drawn_variation
from osler.training.images import augment, placed, resized


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Images as a batch shows them: pixels, or patches.

    Attributes:
        pixels_BCSS: -1 to 1.
        patches_BPD: what a resting tower gave, instead.
        guide_BPC: what another network sees in the places of the patches.
    """

    pixels_BCSS: Tensor | None = None
    patches_BPD: Tensor | None = None
    guide_BPC: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What another network sees in each image.

    Attributes:
        maps_NCSS: of the images as they are; of mean 0 and deviation 1.
        grid: patches along a side of the tower that is guided.
    """

    maps_NCSS: Tensor
    grid: int


Show = Callable[[Sequence[tuple[int, random.Random]]], Shown]


def varied_images(
    items: Sequence[PackedImage],
    squares_N3SS: Tensor,
    side_px: int | None = None,
    guide: Guide | None = None,
) -> Show:
    """Show images varied anew each time.

    Args:
        items: of which sets the images are.
        squares_N3SS: uint8 images.
        side_px: of what is shown; None for that of the squares.
        guide: its maps are varied as the images are.
    """

    def show(chosen: Sequence[tuple[int, random.Random]]) -> Shown:
        pixels, guides = [], []
        for i, rng in chosen:
            varied = drawn_variation(items[i].set_name, rng)
            pixels.append(augment(squares_N3SS[i][None], varied, side_px))
            if guide is not None:
                guides.append(placed(guide.maps_NCSS[i][None].float(), varied, guide.grid))
        return Shown(
            pixels_BCSS=torch.cat(pixels),
            guide_BPC=torch.cat(guides).flatten(2).transpose(1, 2) if guides else None,
        )

    return show


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
