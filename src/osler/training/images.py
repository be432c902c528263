"""Training images: decoded once into memory, varied on every use.

Shapes: N images held, B batch, S image side.
"""

import io
import math
from collections.abc import Iterable, Sequence

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from osler.ingest.image_pack import PackedImage

# Sets whose images have no up and down: they may be turned by quarters.
_NO_UPRIGHT = frozenset({"histo_lc25000_lung", "derm_ham10000"})


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


def augment(squares_B3SS: Tensor, sets: Iterable[str], generator: torch.Generator) -> Tensor:
    """Vary images: turn, zoom, shift, mirror, contrast, brightness.

    Args:
        squares_B3SS: uint8.
        sets: the set that each image comes from; skin and slides may be turned by quarters.
        generator: source of the randomness.

    Returns:
        float32 (B, 3, S, S), -1 to 1; what is shifted in is black, like the padding.
    """
    batch = squares_B3SS.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(batch).uniform_(low, high, generator=generator)

    angle = uniform(-math.pi / 20, math.pi / 20)
    free = torch.tensor([name in _NO_UPRIGHT for name in sets])
    quarters = torch.randint(0, 4, (batch,), generator=generator)
    angle = angle + torch.where(free, quarters, 0) * (math.pi / 2)
    zoom = uniform(math.log(0.8), math.log(1.15)).exp()
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    stretch = uniform(math.log(0.9), math.log(1.1)).exp()
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = angle.cos() * zoom * mirror * stretch
    theta[:, 0, 1] = -angle.sin() * zoom
    theta[:, 1, 0] = angle.sin() * zoom * mirror * stretch
    theta[:, 1, 1] = angle.cos() * zoom
    theta[:, 0, 2] = uniform(-0.07, 0.07)
    theta[:, 1, 2] = uniform(-0.07, 0.07)
    grid = F.affine_grid(theta, list(squares_B3SS.shape), align_corners=False)
    moved = F.grid_sample(squares_B3SS.float() / 255.0, grid, align_corners=False)
    gamma = uniform(math.log(0.75), math.log(1.33)).exp()
    gain = uniform(0.85, 1.15)
    varied = moved.clamp(min=1e-6) ** gamma[:, None, None, None] * gain[:, None, None, None]
    return varied.clamp(max=1.0) * 2.0 - 1.0
