"""Images as the decoder meets them while its vision tower rests: pooled patches, computed once.

Shapes: N images, S image side, T tokens an image, D vision hidden_size.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from osler.models.medgemma import MedGemma
from osler.training.images import augment, to_model_range
from osler.training.optim import load_state, save_state


def pooled_features(
    model: MedGemma,
    squares_N3SS: Tensor,
    sets: Sequence[str],
    path: Path,
    *,
    varied: bool,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Encode and pool every image, or read what an earlier call kept at `path`.

    Args:
        model: its vision tower encodes.
        squares_N3SS: uint8 images.
        sets: the set of each image.
        path: where the result is kept.
        varied: whether the images are augmented first.
        batch_size: images a step.
        seed: of the augmentation.

    Returns:
        (N, T, D) bfloat16.
    """
    if kept := load_state(path):
        features: Tensor = kept["pooled_NTD"]
        return features
    generator = torch.Generator().manual_seed(seed)
    parts = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in tqdm(range(0, len(sets), batch_size), desc="encoding", mininterval=5):
            squares = squares_N3SS[start : start + batch_size]
            names = sets[start : start + batch_size]
            pixels = augment(squares, names, generator) if varied else to_model_range(squares)
            pooled = model.multi_modal_projector.pooled(model.vision_tower(pixels))
            parts.append(pooled.bfloat16())
    features = torch.cat(parts)
    save_state(path, {"pooled_NTD": features})
    return features
