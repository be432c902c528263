"""Training images: decoding, variation, and the first weights made from them."""

import io

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from osler.preprocess.squaring import square as processor_square
from osler.training.embeddings import sines_and_cosines, whiten
from osler.training.images import augment, square, to_model_range, variation


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_training_sees_an_image_as_the_processor_shows_it() -> None:
    pixels_HW3 = noise(40, 25)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels_HW3).save(buffer, "PNG")
    wanted = processor_square(
        pixels_HW3, squaring="pad", side_px=32, resample=PIL.Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(square(buffer.getvalue(), 32).transpose(1, 2, 0), wanted)


def test_augment_keeps_shape_and_range_and_differs_from_call_to_call() -> None:
    squares = torch.from_numpy(noise(64, 64).transpose(2, 0, 1).copy())[None].repeat(3, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    first = augment(squares, variation(["cxr_kermany", "derm_ham10000", "us_busi"], generator))
    second = augment(squares, variation(["cxr_kermany", "derm_ham10000", "us_busi"], generator))
    assert first.shape == (3, 3, 64, 64)
    assert first.dtype == torch.float32
    assert -1 <= first.min() < first.max() <= 1
    assert not torch.equal(first, second)


def test_only_images_without_an_upright_are_turned() -> None:
    # Bright above, dark below: no mirror, shift or slight tilt changes that, a turn does.
    bright_above = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    bright_above[:, :, :16] = 200
    generator = torch.Generator().manual_seed(0)

    def upright(set_name: str) -> bool:
        image = augment(bright_above, variation([set_name], generator))[0]
        return bool(image[:, :16].mean() > image[:, 16:].mean() + 0.5)

    assert all(upright("cxr_kermany") for _ in range(20))
    assert not all(upright("histo_lc25000_lung") for _ in range(20))


def test_bodies_with_a_left_and_a_right_are_never_mirrored() -> None:
    bright_left = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    bright_left[:, :, :, :16] = 200
    generator = torch.Generator().manual_seed(0)

    def mirrored(set_name: str) -> bool:
        image = augment(bright_left, variation([set_name], generator))[0]
        return bool(image[..., :16].mean() < image[..., 16:].mean())

    assert not any(mirrored("cxr_kermany") for _ in range(20))
    assert any(mirrored("mri_brain_tumor") for _ in range(20))


def test_colours_keep_their_hue() -> None:
    red = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    red[:, 0] = 120
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        inside = augment(red, variation(["derm_ham10000"], generator))[0, :, 12:20, 12:20] + 1.0
        assert torch.allclose(inside[1], inside[2], atol=1e-5)
        assert (inside[0] > inside[1]).all()


def test_whitened_patches_are_uncorrelated_and_equally_strong() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(200, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=False)
    squares = (smooth * 255).to(torch.uint8)
    patch_embedding = nn.Conv2d(3, 12, 8, stride=8)
    whiten(patch_embedding, squares)
    with torch.no_grad():
        outputs = patch_embedding(to_model_range(squares)).permute(1, 0, 2, 3).flatten(1)
    covariance = torch.cov(outputs)
    assert outputs.mean(dim=1).abs().max() < 1e-4
    off_diagonal = covariance - covariance.diag().diag()
    assert off_diagonal.abs().max() < 1e-3
    # 0.5 squared, less what the noise floor takes from weak components.
    assert covariance.diag().max() == pytest.approx(0.25, abs=0.01)


def test_every_place_of_the_grid_has_its_own_vector() -> None:
    places = sines_and_cosines(7, 192)
    assert places.shape == (49, 192)
    assert torch.cdist(places, places).fill_diagonal_(9).min() > 0.5
