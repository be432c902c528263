"""Images and texts to what a MedSigLIP takes.

Shapes: N images or texts, S image side, L text positions.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling

from osler.errors import CheckpointError
from osler.models.hf_config import read_medsiglip_config
from osler.preprocess.image_settings import ImageSettings, read_image_settings
from osler.preprocess.pixels import PixelMaker
from osler.preprocess.siglip_tokenizer import SiglipTokenizer
from osler.preprocess.sources import ImageSource
from osler.preprocess.squaring import Squaring


class EncoderProcessor:
    """A MedSigLIP's preparation of its input."""

    def __init__(self, tokenizer: SiglipTokenizer, pixel_maker: PixelMaker) -> None:
        """Most callers want `from_folder`."""
        self.tokenizer = tokenizer
        self._pixel_maker = pixel_maker

    @classmethod
    def from_folder(cls, folder: str | Path, *, version: str = "1") -> "EncoderProcessor":
        """Read the tokenizer and the settings of a checkpoint.

        Args:
            folder: a Hugging Face folder; its weights are not read.
            version: of the CT windows. MedSigLIP came with MedGemma 1 and learnt with its.

        Raises:
            CheckpointError: a file is missing or broken, or two of them contradict each other.
        """
        folder = Path(folder)
        config = read_medsiglip_config(folder)
        tokenizer = SiglipTokenizer.from_folder(
            folder, length=config.text_config.max_position_embeddings
        )
        if tokenizer.vocab_size > (size := config.text_config.vocab_size):
            raise CheckpointError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model {size}"
            )
        # What SigLIP's image processor does where its file is silent.
        settings = read_image_settings(folder, ImageSettings(resample=Resampling.BICUBIC))
        if settings.side_px != (side := config.vision_config.image_size):
            raise CheckpointError(
                f"{folder}: the side of an image is {settings.side_px} for the processor, "
                f"{side} for the model"
            )
        return cls(tokenizer, PixelMaker(settings, version))

    def pixels(
        self, images: Iterable[ImageSource], *, squaring: Squaring = "pad"
    ) -> NDArray[np.float32]:
        """Prepare images.

        Args:
            images: paths, `Image`s, PIL images or uint8 arrays, as `sources.as_image` takes them.
            squaring: "pad" with zeros to a square, as MedSigLIP is served, or "stretch", as the
                plain `transformers` processor does.

        Returns:
            float32 (N, 3, S, S), -1 to 1.

        Raises:
            InputError: an image that cannot be read.
        """
        prepared = self._pixel_maker.prepare(images, squaring=squaring, pan_and_scan=False)
        return prepared.pixels_N3SS

    def ids(self, texts: Iterable[str]) -> NDArray[np.int64]:
        """Prepare texts; what is beyond the encoder's positions is cut off.

        Returns:
            int64 (N, L).

        Raises:
            PromptError: text that is not Unicode.
        """
        rows = [self.tokenizer.encode(text) for text in texts]
        return np.array(rows, dtype=np.int64).reshape(len(rows), self.tokenizer.length)
