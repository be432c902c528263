"""A MedSigLIP in torch that takes and gives arrays.

Shapes: N images, M texts, C channels, S image side, L text positions, D embedding size.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osler.models.config import MedSiglipConfig
from osler.models.medsiglip import MedSiglip


class TorchEncoder:
    """An `EmbeddingModel`, on whatever device and in whatever dtype its weights are."""

    def __init__(self, model: MedSiglip) -> None:
        self._model = model

    @property
    def config(self) -> MedSiglipConfig:
        """See `EmbeddingModel.config`."""
        return self._model.config

    @property
    def scale(self) -> float:
        """See `EmbeddingModel.scale`."""
        return self._model.logit_scale.detach().exp().item()

    def embed_images(self, pixels_NCSS: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `EmbeddingModel.embed_images`."""
        return self._embedded(self._model.embed_images, pixels_NCSS)

    def embed_texts(self, ids_ML: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `EmbeddingModel.embed_texts`."""
        return self._embedded(self._model.embed_texts, ids_ML)

    @torch.inference_mode()
    def _embedded(
        self,
        embed: Callable[[Tensor], Tensor],
        inputs: NDArray[np.float32] | NDArray[np.int64],
    ) -> NDArray[np.float32]:
        vectors = embed(torch.as_tensor(inputs, device=self._model.logit_scale.device))
        array: NDArray[np.float32] = vectors.float().cpu().numpy()
        return array
