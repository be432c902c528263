"""Training images: decoded once into memory, varied on every use.

Shapes: N images held, B batch, S image side.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from osler.ingest.image_pack import PackedImage

# Sets whose images have no up and down.
_NO_UPRIGHT = frozenset({"histo_lc25000_lung", "derm_ham10000"})
# Figures cut from papers, whose shape goes with the class: their shape is varied much.
_TELLING_SHAPE = frozenset({"ct_covid"})
# Sets of bodies with a left and a right side.
_SIDED = frozenset({"cxr_kermany", "ct_covid", "medpix2", "vqa_rad"})


def square(image_bytes: bytes, side_px: int) -> NDArray[np.uint8]:
    """Decode, zero-pad to a square and resize, as the processor does.

    Returns:
        uint8 (3, side_px, side_px) RGB.
    """
    with PIL.Image.open(io.BytesIO(image_bytes)) as opened:
        image = opened.convert("RGB")
    longest = max(image.size)
    padded = PIL.Image.new("RGB", (longest, longest))
    padded.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    resized = padded.resize((side_px, side_px), PIL.Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1)


def load_squares(items: Sequence[PackedImage], side_px: int) -> Tensor:
    """Decode all images into one uint8 tensor (N, 3, S, S)."""
    squares = np.empty((len(items), 3, side_px, side_px), dtype=np.uint8)
    for index, item in enumerate(tqdm(items, desc="decoding", mininterval=5)):
        squares[index] = square(item.image_bytes, side_px)
    return torch.from_numpy(squares)


def to_model_range(squares_B3SS: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return squares_B3SS.float() / 127.5 - 1.0


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How each of some images is varied.

    Attributes:
        matrix_B23: places of the result, -1 to 1, to places of the image.
        gain_B: brightness, about 1.
        contrast_B: about 1.
    """

    matrix_B23: Tensor
    gain_B: Tensor
    contrast_B: Tensor


def variation(sets: Sequence[str], generator: torch.Generator) -> Variation:
    """Draw zoom, shift, tilt, brightness and contrast; mirror and turn where that is true.

    Args:
        sets: the set that each image comes from. Chest and abdomen have a left and a right, so
            they are never mirrored; skin and slides have no upright, so they may be turned by
            any angle. Colours keep their hue: in skin, eyes and slides it is the finding.
        generator: source of the randomness.
    """
    count = len(sets)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count).uniform_(low, high, generator=generator)

    free = torch.tensor([name in _NO_UPRIGHT for name in sets])
    sided = torch.tensor([name in _SIDED for name in sets])
    angle = uniform(-1.0, 1.0) * torch.where(free, math.pi, math.radians(10))
    mirror = torch.where(sided | (uniform(-1.0, 1.0) < 0), 1.0, -1.0)
    zoom = uniform(0.72, 1.05)
    telling = torch.tensor([name in _TELLING_SHAPE for name in sets])
    aspect = uniform(-1.0, 1.0).mul(torch.where(telling, math.log(1.6), math.log(1.08))).exp()
    across, down = zoom * aspect.clamp(max=1.0) * mirror, zoom / aspect.clamp(min=1.0)
    cosine, sine = angle.cos(), angle.sin()
    room = (1.05 - zoom).clamp(min=0.1)
    shift = [uniform(-1.0, 1.0) * room for _ in range(2)]
    matrix_B23 = torch.stack(
        [cosine * across, -sine * down, shift[0], sine * across, cosine * down, shift[1]], dim=-1
    ).view(count, 2, 3)
    return Variation(matrix_B23=matrix_B23, gain_B=uniform(0.8, 1.2), contrast_B=uniform(0.8, 1.2))


def augment(squares_B3SS: Tensor, varied: Variation, side_px: int | None = None) -> Tensor:
    """Vary images.

    Args:
        squares_B3SS: uint8.
        varied: how.
        side_px: of the result; None for that of the squares. Not less than half of that, since
            nothing is averaged.

    Returns:
        float32 (B, 3, side_px, side_px), -1 to 1; what is shifted in is black, like the padding.
    """
    count, side_px = len(squares_B3SS), side_px or squares_B3SS.shape[-1]
    places_B2SS = (varied.matrix_B23 @ _places(side_px)).view(count, 2, side_px, side_px)
    pixels = F.grid_sample(
        squares_B3SS.float(), places_B2SS.permute(0, 2, 3, 1), align_corners=False
    )
    mean = squares_B3SS[:, :, ::8, ::8].float().mean(dim=(1, 2, 3))
    gain, contrast = varied.gain_B, varied.contrast_B
    slope, base = gain * contrast / 127.5, gain * (1.0 - contrast) * mean / 127.5
    pixels *= slope[:, None, None, None]
    pixels += base[:, None, None, None]
    return pixels.clamp_(0.0, 2.0).sub_(1.0)


def resized(pixels_BCSS: Tensor, side_px: int) -> Tensor:
    """Images at another size, averaged where they become smaller."""
    if pixels_BCSS.shape[-1] == side_px:
        return pixels_BCSS
    return F.interpolate(
        pixels_BCSS, size=(side_px, side_px), mode="bilinear", antialias=True, align_corners=False
    )


@cache
def _places(side_px: int) -> Tensor:
    """Where the pixels of a square lie, from -1 to 1, with a one below: (3, side * side)."""
    middles = (torch.arange(side_px) * 2 + 1) / side_px - 1.0
    down, across = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([across.flatten(), down.flatten(), torch.ones(side_px**2)])
