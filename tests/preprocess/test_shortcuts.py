"""Shortcuts that change no bit: kernels, grey as one channel, several images at once."""

import numpy as np
import pytest
from PIL.Image import Resampling

from osler.errors import UnreadableFileError
from osler.ingest.image import Image, Voi
from osler.preprocess import pixels as pixels_module
from osler.preprocess import render as rendering
from osler.preprocess import squaring as squaring_module
from osler.preprocess.image_settings import ImageSettings
from osler.preprocess.pixels import PixelMaker
from osler.preprocess.render import render
from osler.preprocess.squaring import square

DRAW = np.random.default_rng(0)
HU = DRAW.integers(-1024, 3000, (90, 70)).astype(np.float32)
WINDOW = Voi(window_centers=(300.5,), window_widths=(700.0,), function="SIGMOID")


def image(**fields) -> Image:
    known = {"values": HU, "space": "modality", "source": "x", "sha256": "0", "decoder": "x"}
    return Image(**{**known, **fields})


NATIVE_OR_NOT = [
    image(modality="CT"),
    image(modality="MR"),
    image(modality="CR", monochrome1=True),
    image(modality="US", voi=WINDOW),
    image(modality="PT", shown_range=(-7.5, 900.25), monochrome1=True),
    image(modality="PT", shown_range=(5.0, 5.0)),
    image(modality="MR", values=np.full((9, 9), 7, np.float32)),
    image(modality="MR", values=HU * np.float32(1e6)),
    image(modality="MR", values=HU[::2, ::3] / np.float32(3)),
    image(space="display", values=DRAW.integers(0, 256, (41, 20, 3), dtype=np.uint8)),
]


@pytest.mark.parametrize("one", NATIVE_OR_NOT)
@pytest.mark.parametrize("squaring", ["pad", "stretch"])
@pytest.mark.parametrize("resample", [Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS])
def test_kernels_change_no_bit(one: Image, squaring, resample, monkeypatch) -> None:
    maker = PixelMaker(ImageSettings(side_px=48, resample=resample, image_std=(0.5, 0.3, 1)), "1.5")

    def made() -> tuple[np.ndarray, np.ndarray]:
        (seen,) = maker.seen([one], squaring=squaring, pan_and_scan=False)
        return render(one, medgemma_version="1.5"), maker.pixels(seen.squares)

    with_kernels = made()
    for module in (rendering, squaring_module, pixels_module):
        monkeypatch.setattr(module, "library", lambda: None)
    for with_them, without in zip(with_kernels, made(), strict=True):
        np.testing.assert_array_equal(with_them, without)


@pytest.mark.parametrize("size", [(90, 70), (40, 41), (64, 64), (1, 9)])
@pytest.mark.parametrize("squaring", ["pad", "stretch"])
def test_grey_is_squared_as_three_like_channels_are(size, squaring) -> None:
    grey = DRAW.integers(0, 256, (*size, 1), dtype=np.uint8)
    settings = {"squaring": squaring, "side_px": 48, "resample": Resampling.BILINEAR}
    once = square(np.broadcast_to(grey, (*size, 3)), **settings)
    np.testing.assert_array_equal(once, square(np.repeat(grey, 3, axis=2), **settings))


def test_many_images_are_in_their_order_and_the_first_error_is_raised() -> None:
    maker = PixelMaker(ImageSettings(side_px=8, image_std=(0.5, 0.25, 0.5)), "1.5")
    shades = [np.full((5, 5, 3), level, np.uint8) for level in range(30)]
    seen = maker.seen(shades, squaring="pad", pan_and_scan=False)
    assert [int(one.squares[0][0, 0, 0]) for one in seen] == list(range(30))
    pixels = maker.pixels([one.squares[0] for one in seen])
    prepared = maker.prepare(iter(shades), squaring="pad", pan_and_scan=False)
    np.testing.assert_array_equal(prepared.pixels_N3SS, pixels)
    assert prepared.sha256 == [one.sha256 for one in seen]
    assert prepared.squares == [1] * 30
    expected = ((np.arange(30) / 255).astype(np.float32) - np.float32(0.5)) / np.float32(0.25)
    np.testing.assert_array_equal(pixels[:, 1, 3, 3], expected)
    with pytest.raises(UnreadableFileError, match=r"^a\.png: no such file"):
        maker.prepare(["a.png", shades[0], "b.png"], squaring="pad", pan_and_scan=False)
