"""Images to the numbers that a vision tower takes.

Shapes: N squares, S side, H height, W width.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from osler.ingest.image import Image
from osler.ingest.worker_pool import WORKERS
from osler.native.library import library
from osler.native.pixels import looked_up
from osler.preprocess.image_settings import ImageSettings
from osler.preprocess.pan_and_scan import crops
from osler.preprocess.render import render
from osler.preprocess.sources import ImageSource, as_image
from osler.preprocess.squaring import Display, Squaring, square


class Seen(NamedTuple):
    """What becomes of one image.

    Attributes:
        sha256: of its file.
        squares: the whole, then its crops, if any.
    """

    sha256: str
    squares: list[Display]


class PixelMaker:
    """One model's way from images to pixels.

    Attributes:
        settings: what the checkpoint says.
        medgemma_version: whose CT windows are used.
    """

    def __init__(self, settings: ImageSettings, medgemma_version: str) -> None:
        self.settings = settings
        self.medgemma_version = medgemma_version

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

    def seen(
        self, images: Iterable[ImageSource], *, squaring: Squaring, pan_and_scan: bool
    ) -> list[Seen]:
        """Read images and make their squares, as many at once as there are workers to read them.

        Raises:
            InputError: one that cannot be read; the first of them.
        """
        one = partial(self._seen, squaring=squaring, pan_and_scan=pan_and_scan)
        # Decoding is the workers'; Pillow and numpy leave the interpreter to the other threads.
        with ThreadPoolExecutor(WORKERS) as threads:
            return list(threads.map(one, images))

    def _seen(self, source: ImageSource, *, squaring: Squaring, pan_and_scan: bool) -> Seen:
        image = as_image(source)
        return Seen(image.sha256, self.squares(image, squaring=squaring, pan_and_scan=pan_and_scan))

    def pixels(self, squares: Sequence[Display]) -> NDArray[np.float32]:
        """Rescale and normalise.

        Args:
            squares: N times uint8 (S, S, 3).

        Returns:
            float32 (N, 3, S, S), -1 to 1 with the usual mean and deviation of 0.5.
        """
        side = self.settings.side_px
        pixels_N3SS = np.empty((len(squares), 3, side, side), dtype=np.float32)
        tables = [self._table(channel) for channel in range(3)]

        def normalise(square_SS3: Display, out_3SS: NDArray[np.float32]) -> None:
            for channel, table in enumerate(tables):
                _look_up(square_SS3[:, :, channel], table, out_3SS[channel])

        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(normalise, squares, pixels_N3SS))
        return pixels_N3SS

    def _table(self, channel: int) -> NDArray[np.float32]:
        """Scaled in float64 and rounded, then normalised in float32, as `transformers` does it."""
        scaled = (np.arange(256) * self.settings.rescale_factor).astype(np.float32)
        scaled -= np.float32(self.settings.image_mean[channel])
        scaled /= np.float32(self.settings.image_std[channel])
        return scaled


def _look_up(levels_SS: Display, table: NDArray[np.float32], out_SS: NDArray[np.float32]) -> None:
    native = library()
    if native is None:
        table.take(levels_SS, out=out_SS, mode="clip")
        return
    if levels_SS.strides[0] != len(levels_SS) * levels_SS.strides[1]:
        levels_SS = np.ascontiguousarray(levels_SS)
    looked_up(native, levels_SS, table, out_SS)
