"""Embeddings of images, each made once for a tenant as long as there is room.

Shapes: T tokens an image, D hidden_size, C channels, S image side.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osler.errors import PromptError
from osler.models.config import MedGemmaConfig


@dataclass(frozen=True, eq=False)
class PromptImage:
    """An image in a prompt.

    Attributes:
        start: position of its first token.
        end: the position behind its last.
        digest: sha256 of its pixels as a number.
        pixels_CSS: float32.
    """

    start: int
    end: int
    digest: int
    pixels_CSS: NDArray[np.float32]

    @property
    def key(self) -> int:
        """Stands for its tokens where token ids are compared; below every id."""
        return -1 - self.digest


def images_of(
    ids: list[int], pixels_NCSS: NDArray[np.float32], config: MedGemmaConfig
) -> list[PromptImage]:
    """Find a prompt's images.

    Args:
        ids: with as many image tokens as the images need.
        pixels_NCSS: float32, the images in reading order.
        config: the model's.

    Raises:
        PromptError: something stands between the tokens of one image.
    """
    places = [place for place, token in enumerate(ids) if token == config.image_token_id]
    tokens = config.mm_tokens_per_image
    images = []
    for first, pixels_CSS in zip(places[::tokens], pixels_NCSS, strict=True):
        end = first + tokens
        if ids[first:end] != [config.image_token_id] * tokens:
            raise PromptError("the tokens of an image do not stand together")
        digest = hashlib.sha256(pixels_CSS.tobytes()).digest()
        images.append(
            PromptImage(start=first, end=end, digest=int.from_bytes(digest), pixels_CSS=pixels_CSS)
        )
    return images


class SoftTokens:
    """A bounded store of embeddings; what was not used for longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._soft: OrderedDict[tuple[str, int], NDArray[np.float32]] = OrderedDict()

    def get(self, tenant: str, image: PromptImage) -> NDArray[np.float32] | None:
        """The embedding (T, D) of a tenant's image, if it is here."""
        soft_TD = self._soft.get((tenant, image.digest))
        if soft_TD is not None:
            self._soft.move_to_end((tenant, image.digest))
        return soft_TD

    def put(self, tenant: str, image: PromptImage, soft_TD: NDArray[np.float32]) -> None:
        """Remember one; it may be too large to be remembered."""
        key = (tenant, image.digest)
        if key in self._soft:
            return
        self._soft[key] = soft_TD
        self._bytes += soft_TD.nbytes
        while self._bytes > self._most_bytes:
            self._bytes -= self._soft.popitem(last=False)[1].nbytes


def stacked(images: list[PromptImage]) -> NDArray[np.float32]:
    """Their pixels, float32 (N, C, S, S)."""
    return np.stack([image.pixels_CSS for image in images])
