"""Images to the numbers that a vision tower takes.

Shapes: N squares, S side, H height, W width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from osler.ingest.image import Image
from osler.preprocess.image_settings import ImageSettings
from osler.preprocess.pan_and_scan import crops
from osler.preprocess.render import render
from osler.preprocess.squaring import Display, Squaring, square


class PixelMaker:
    """One model's way from images to pixels.

    Attributes:
        settings: what the checkpoint says.
        medgemma_version: whose CT windows are used.
    """

    def __init__(self, settings: ImageSettings, medgemma_version: str) -> None:
        self.settings = settings
        self.medgemma_version = medgemma_version
        # What each of 256 grey levels becomes, channel by channel. Scaled in float64 and rounded,
        # then normalised in float32: the order of `transformers`, to the last bit.
        scaled = (np.arange(256) * settings.rescale_factor).astype(np.float32)
        mean_C1 = np.array(settings.image_mean, dtype=np.float32)[:, np.newaxis]
        std_C1 = np.array(settings.image_std, dtype=np.float32)[:, np.newaxis]
        self._table_C256 = (scaled - mean_C1) / std_C1

    def squares(self, image: Image, *, squaring: Squaring, pan_and_scan: bool) -> list[Display]:
        """The whole image and then its crops, if any, each as uint8 (S, S, 3).

        Raises:
            PromptError: another squaring or version.
            UnsupportedError: an image that is too long and thin.
        """
        display_HW3 = render(image, medgemma_version=self.medgemma_version)
        views = [display_HW3, *(crops(display_HW3, self.settings) if pan_and_scan else [])]
        return [
            square(
                view,
                squaring=squaring,
                side_px=self.settings.side_px,
                resample=self.settings.resample,
            )
            for view in views
        ]

    def pixels(self, squares: Sequence[Display]) -> NDArray[np.float32]:
        """Rescale and normalise.

        Args:
            squares: N times uint8 (S, S, 3).

        Returns:
            float32 (N, 3, S, S), -1 to 1 with the usual mean and deviation of 0.5.
        """
        side = self.settings.side_px
        pixels_N3SS = np.empty((len(squares), 3, side, side), dtype=np.float32)
        for index, one in enumerate(squares):
            for channel in range(3):
                np.take(
                    self._table_C256[channel], one[:, :, channel], out=pixels_N3SS[index, channel]
                )
        return pixels_N3SS
