"""One set of weights at several resolutions, as MedGemma's 896 px tower is MedSigLIP's at 448.

Source: MedGemma (arXiv 2507.05201), section 2.1: position embeddings are resampled.
"""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from osler.errors import InputError
from osler.models.medsiglip import MedSiglip


def resample_positions(places_PD: Tensor, grid: int) -> Tensor:
    """Position embeddings for another grid of patches.

    Args:
        places_PD: a row for each patch of a square grid, in reading order.
        grid: patches along a side, wanted.

    Returns:
        (grid * grid, D): bicubic, and averaged where the grid becomes coarser.
    """
    side = round(len(places_PD) ** 0.5)
    places_1DGG = places_PD.T.reshape(1, -1, side, side).float()
    resized = F.interpolate(
        places_1DGG, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.flatten(2)[0].T.to(places_PD.dtype).contiguous()


def at_resolution(model: MedSiglip, image_size: int) -> MedSiglip:
    """The same encoders for images of another size; all weights but the positions are copies.

    Args:
        model: as it is.
        image_size: side of the images, px.

    Raises:
        InputError: the patches do not divide this size.
    """
    try:
        vision = replace(model.config.vision_config, image_size=image_size)
    except ValueError as error:
        raise InputError(str(error)) from error
    name = "vision_model.embeddings.position_embedding.weight"
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    weights[name] = resample_positions(weights[name], vision.grid)
    resized = MedSiglip(replace(model.config, vision_config=vision))
    resized.load_state_dict(weights)
    return resized
