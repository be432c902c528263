"""MedSigLIP: an image and a text encoder into one space, and the loss that joins them.

Shapes: N images, M texts, D embedding size, L text positions.

Source: MedGemma (arXiv 2507.05201), section 2; SigLIP (arXiv 2303.15343).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osler.models.config import MedSiglipConfig
from osler.models.siglip import PoolingHead, TextTower, VisionTower


class MedSiglip(nn.Module):
    """The encoder pair with its learned scale (as a logarithm) and bias."""

    def __init__(self, config: MedSiglipConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionTower(config.vision_config)
        self.vision_head = PoolingHead(config.vision_config)
        self.text_model = TextTower(config.text_config)
        self.logit_scale = nn.Parameter(torch.zeros(1))
        self.logit_bias = nn.Parameter(torch.zeros(1))

    def embed_images(self, pixels_NCSS: Tensor) -> Tensor:
        """Unit vectors (N, D) of images with values from -1 to 1."""
        return F.normalize(self.vision_head(self.vision_model(pixels_NCSS)), dim=-1)

    def embed_texts(self, ids_ML: Tensor) -> Tensor:
        """Unit vectors (M, D) of texts padded to `max_position_embeddings`."""
        return F.normalize(self.text_model(ids_ML), dim=-1)

    def logits(self, images_ND: Tensor, texts_MD: Tensor) -> Tensor:
        """Scaled and shifted cosine of every image with every text, (N, M)."""
        return images_ND @ texts_MD.T * self.logit_scale.exp() + self.logit_bias

    def forward(self, pixels_NCSS: Tensor, ids_ML: Tensor) -> Tensor:
        """`logits` of images and texts, (N, M)."""
        return self.logits(self.embed_images(pixels_NCSS), self.embed_texts(ids_ML))


def sigmoid_loss(logits_NM: Tensor, match_NM: Tensor | None = None) -> Tensor:
    """Every image-text pair as its own yes-or-no question.

    Args:
        logits_NM: scores of all pairs.
        match_NM: bool, True where image and text belong together; None for the diagonal.

    Returns:
        Scalar. Summed over texts and averaged over images: each image has about one match and
        M - 1 others, and a mean over pairs would shrink the matches' share as the batch grows.

    Source: SigLIP (arXiv 2303.15343), equation 1. Labels are +1 and -1 so that one log-sigmoid
    serves both kinds of pairs.
    """
    if match_NM is None:
        match_NM = torch.eye(*logits_NM.shape, dtype=torch.bool, device=logits_NM.device)
    label_NM = torch.where(match_NM, 1.0, -1.0)
    return -F.logsigmoid(label_NM * logits_NM).sum(dim=-1).mean()
