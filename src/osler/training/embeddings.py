"""Good first weights for what a vision tower does before its blocks.

Shapes: N images, S image side, D hidden_size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_IMAGES = 1500
_PATCHES = 40_000
_NOISE = 0.02


@torch.no_grad()
def whiten(patch_embedding: nn.Conv2d, squares_N3SS: Tensor, seed: int = 0) -> None:
    """Make a patch embedding give the principal components of patches, each of equal strength.

    Neighbouring pixels are much alike: random filters see little but a patch's mean.

    Args:
        patch_embedding: overwritten.
        squares_N3SS: uint8 images to take patches from.
        seed: which of them.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(squares_N3SS), generator=generator)[:_IMAGES]
    size = patch_embedding.weight.shape[-1]
    pixels = squares_N3SS[chosen].float() / 127.5 - 1.0
    patches = F.unfold(pixels, size, stride=size).transpose(1, 2).flatten(0, 1)
    patches = patches[torch.randperm(len(patches), generator=generator)[:_PATCHES]]
    variance, directions = torch.linalg.eigh(torch.cov(patches.T))
    wanted = slice(-patch_embedding.weight.shape[0], None)
    filters = (directions[:, wanted] / (variance[wanted] + _NOISE).sqrt()).T * 0.5
    patch_embedding.weight.copy_(filters.view_as(patch_embedding.weight))
    if patch_embedding.bias is not None:
        patch_embedding.bias.copy_(-(filters @ patches.mean(dim=0)))


def sines_and_cosines(grid: int, size: int) -> Tensor:
    """A vector for each place of a square grid, (grid * grid, size), -1 to 1.

    A quarter of the vector each: sine and cosine across, sine and cosine down, at frequencies
    that fall geometrically from 1 to 1/10,000.
    """
    down, across = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    frequency = 10_000 ** -torch.linspace(0, 1, size // 4)
    angles = [place.flatten()[:, None] * frequency for place in (across, down)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
