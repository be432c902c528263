"""A slide that is open: its levels, and rectangles of them; runs in the decoding worker."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from PIL import Image as PilImage

from osler.errors import UnreadableFileError
from osler.ingest.dicom.attributes import MALFORMED
from osler.ingest.slide.dicom_level import icc_profile
from osler.ingest.slide.libraries import slide_library
from osler.ingest.slide.pyramid import is_same_shape

Files = tuple[tuple[str, ...], ...]
# A row of tiles across a large slide, so that its neighbours need not decode it again.
_CACHE_BYTES = 96 << 20
_WHITE = (255, 255, 255)


class OpenedSlide(ABC):
    """A pyramid of one image in several sizes.

    Attributes:
        sizes: (width, height) of each level in pixels, the largest first.
        profile: the ICC profile of its colours.
        decoder: which library reads it.
    """

    sizes: list[tuple[int, int]]
    profile: bytes | None
    decoder: str

    @abstractmethod
    def read(self, level: int, left: int, top: int, width: int, height: int) -> PilImage.Image:
        """A rectangle within one level, RGB, white where nothing was scanned.

        Raises:
            UnreadableFileError: damaged.
        """

    @abstractmethod
    def close(self) -> None:
        """Close its files."""


class _Openslide(OpenedSlide):
    decoder = "openslide"

    def __init__(self, path: str) -> None:
        self._library = slide_library("openslide")
        try:
            self._slide = self._library.OpenSlide(path)
            self._slide.set_cache(self._library.OpenSlideCache(_CACHE_BYTES))
            every = self._slide.level_dimensions
            profile = self._slide.color_profile
        except self._library.OpenSlideError:
            raise _damaged() from None
        # A tiled picture of the label in a plain TIFF would pass for a level.
        self._numbers = [
            number for number, size in enumerate(every) if is_same_shape(size, every[0])
        ]
        self.sizes = [every[number] for number in self._numbers]
        self.profile = None if profile is None else profile.tobytes()

    def read(self, level: int, left: int, top: int, width: int, height: int) -> PilImage.Image:
        across, down = (
            base / own for base, own in zip(self.sizes[0], self.sizes[level], strict=True)
        )
        # openslide takes places in pixels of the largest level, and rounds them down to its own.
        corner = round(left * across), round(top * down)
        try:
            pixels = self._slide.read_region(corner, self._numbers[level], (width, height))
        except self._library.OpenSlideError:
            raise _damaged() from None
        ground = PilImage.new("RGB", pixels.size, _WHITE)
        ground.paste(pixels, mask=pixels.getchannel("A"))
        return ground

    def close(self) -> None:
        self._slide.close()


class _DicomPyramid(OpenedSlide):
    """Each level opened for itself: the sizes of some scanners' are not halves of one another."""

    decoder = "wsidicom"

    def __init__(self, files: Files) -> None:
        library = slide_library("wsidicom")
        settings = slide_library("wsidicom.config").Settings(
            decoded_frame_cache_size=_CACHE_BYTES, encoded_frame_cache_size=_CACHE_BYTES // 16
        )
        self._faults = _dicom_faults()
        self._levels: list[Any] = []
        try:
            for level in files:
                self._levels.append(library.WsiDicom.open(level, settings=settings))
            self.sizes = [(slide.size.width, slide.size.height) for slide in self._levels]
            self.profile = icc_profile(files[0][0])
        except self._faults:
            self.close()
            raise _damaged() from None

    def read(self, level: int, left: int, top: int, width: int, height: int) -> PilImage.Image:
        try:
            pixels: PilImage.Image = self._levels[level].read_region(
                (left, top), 0, (width, height)
            )
        except self._faults:
            raise _damaged() from None
        return pixels.convert("RGB")

    def close(self) -> None:
        for level in self._levels:
            level.close()


def open_slide(reader: str, files: Files) -> OpenedSlide:
    """Open a slide, or give the one that was opened last.

    Args:
        reader: as `SlideFacts` says.
        files: likewise.

    Raises:
        UnreadableFileError: damaged, or changed while it was read.
        UnsupportedError: the library is not installed.
    """
    try:
        states = [os.stat(path) for level in files for path in level]
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror})") from None
    marks = tuple((state.st_size, state.st_mtime_ns) for state in states)
    return _opened(reader, files, marks)


@lru_cache(maxsize=1)
def _opened(reader: str, files: Files, _marks: Sequence[tuple[int, int]]) -> OpenedSlide:
    return _DicomPyramid(files) if reader == "wsidicom" else _Openslide(files[0][0])


def _dicom_faults() -> tuple[type[Exception], ...]:
    """What wsidicom raises, whose errors have no base of their own, and what pydicom does."""
    errors = vars(slide_library("wsidicom.errors")).values()
    own = (one for one in errors if isinstance(one, type) and issubclass(one, Exception))
    return (*own, *MALFORMED)


def _damaged() -> UnreadableFileError:
    return UnreadableFileError("the slide is damaged, or coded in a way that is not read")
