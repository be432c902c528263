"""Images to the numbers that a vision tower takes.

Shapes: N squares, S side, H height, W width.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
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


class Prepared(NamedTuple):
    """What becomes of some images.

    Attributes:
        sha256: of their files.
        squares: how many each has: one, and its crops.
        pixels_N3SS: float32, -1 to 1, of all squares in their order.
    """

    sha256: list[str]
    squares: list[int]
    pixels_N3SS: NDArray[np.float32]


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

    def prepare(
        self, images: Iterable[ImageSource], *, squaring: Squaring, pan_and_scan: bool
    ) -> Prepared:
        """Read images and make their pixels, as many at once as there are workers to read them.

        Raises:
            InputError: one that cannot be read; the first of them.
        """
        sources = list(images)
        if pan_and_scan:  # there is no room for the pixels before the crops are counted
            seen = self.seen(sources, squaring=squaring, pan_and_scan=True)
            pixels_N3SS = self.pixels([square for one in seen for square in one.squares])
            return Prepared(
                [one.sha256 for one in seen], [len(one.squares) for one in seen], pixels_N3SS
            )
        pixels_N3SS = self._room(len(sources))
        tables = self._tables()

        def make(source: ImageSource, out_3SS: NDArray[np.float32]) -> str:
            seen = self._seen(source, squaring=squaring, pan_and_scan=False)
            _normalise(seen.squares[0], tables, out_3SS)  # at once, while a cache has it
            return seen.sha256

        with ThreadPoolExecutor(WORKERS) as threads:
            sha256 = list(threads.map(make, sources, pixels_N3SS))
        return Prepared(sha256, [1] * len(sources), pixels_N3SS)

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
        pixels_N3SS = self._room(len(squares))
        tables = self._tables()
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(_normalise, squares, repeat(tables), pixels_N3SS))
        return pixels_N3SS

    def _room(self, squares: int) -> NDArray[np.float32]:
        side = self.settings.side_px
        return np.empty((squares, 3, side, side), dtype=np.float32)

    def _tables(self) -> list[NDArray[np.float32]]:
        """What becomes of each level in each channel.

        Scaled in float64 and rounded, then normalised in float32, as `transformers` does it.
        """
        scaled = (np.arange(256) * self.settings.rescale_factor).astype(np.float32)
        channels = zip(self.settings.image_mean, self.settings.image_std, strict=True)
        return [(scaled - np.float32(mean)) / np.float32(std) for mean, std in channels]


def _normalise(
    square_SS3: Display, tables: Sequence[NDArray[np.float32]], out_3SS: NDArray[np.float32]
) -> None:
    for channel, table in enumerate(tables):
        _look_up(square_SS3[:, :, channel], table, out_3SS[channel])


def _look_up(levels_SS: Display, table: NDArray[np.float32], out_SS: NDArray[np.float32]) -> None:
    native = library()
    if native is None:
        table.take(levels_SS, out=out_SS, mode="clip")
        return
    if levels_SS.strides[0] != len(levels_SS) * levels_SS.strides[1]:
        levels_SS = np.ascontiguousarray(levels_SS)
    looked_up(native, levels_SS, table, out_SS)
