"""Images as the later phases meet them while the vision tower rests: encoded once.

Shapes: N images, S image side, P patches, D vision hidden_size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from osler.models.siglip import VisionTower
from osler.training.images import augment, to_model_range, variation
from osler.training.optim import precision


@torch.inference_mode()
def encode_images(
    tower: VisionTower,
    squares_N3SS: Tensor,
    sets: Sequence[str],
    *,
    varied: bool,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Encode every image.

    Args:
        tower: what encodes.
        squares_N3SS: uint8 images.
        sets: the set of each image.
        varied: whether the images are augmented first.
        batch_size: images a step.
        seed: of the augmentation.

    Returns:
        (N, P, D) bfloat16.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = []
    with precision(torch.device("cpu"), bf16=True):
        for start in tqdm(range(0, len(sets), batch_size), desc="encoding", mininterval=5):
            squares = squares_N3SS[start : start + batch_size]
            names = sets[start : start + batch_size]
            pixels = (
                augment(squares, variation(names, generator)) if varied else to_model_range(squares)
            )
            parts.append(tower(pixels).bfloat16())
    return torch.cat(parts)
