"""Training images: decoded once into memory, varied on every use.

Shapes: N images held, B batch, S image side.
"""

import io
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
    """Vary images a little: mirror, shift, brighten; turn those that have no upright.

    A small encoder that sees each image a few times learns slower from stronger changes.

    Args:
        squares_B3SS: uint8.
        sets: the set that each image comes from; skin and slides may be turned by quarters.
        generator: source of the randomness.

    Returns:
        float32 (B, 3, S, S), -1 to 1; what is shifted in is black, like the padding.
    """
    side = squares_B3SS.shape[-1]
    margin = side // 16
    varied = []
    for image_3SS, name in zip(squares_B3SS, sets, strict=True):
        mirror, turn = (int(torch.randint(0, n, (1,), generator=generator)) for n in (2, 4))
        if mirror:
            image_3SS = image_3SS.flip(-1)
        if name in _NO_UPRIGHT:
            image_3SS = image_3SS.rot90(turn, (1, 2))
        top, left = torch.randint(0, 2 * margin + 1, (2,), generator=generator).tolist()
        padded = F.pad(image_3SS, (margin, margin, margin, margin))
        varied.append(padded[:, top : top + side, left : left + side])
    gain = torch.empty(len(varied), 1, 1, 1).uniform_(0.85, 1.15, generator=generator)
    return (torch.stack(varied) * (gain / 127.5)).clamp(max=2.0) - 1.0
