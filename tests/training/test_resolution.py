"""The same encoders at another size of image."""

import pytest
import torch

from osler.errors import InputError
from osler.models.medsiglip import MedSiglip
from osler.testing.models import tiny_medsiglip
from osler.training.resolution import at_resolution, resample_positions


def test_positions_keep_their_places() -> None:
    grid = torch.linspace(-1, 1, 4)
    places = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), dim=-1).reshape(16, 2)
    finer = resample_positions(places, 8).reshape(8, 8, 2)
    assert torch.all(finer[1:, :, 0] > finer[:-1, :, 0]), "down grows downwards"
    assert torch.all(finer[:, 1:, 1] > finer[:, :-1, 1]), "across grows rightwards"
    torch.testing.assert_close(resample_positions(places, 4), places)
    back = resample_positions(resample_positions(places, 8), 4)
    torch.testing.assert_close(back, places, atol=0.1, rtol=0)


def test_all_but_the_positions_is_the_same() -> None:
    model = MedSiglip(tiny_medsiglip())
    vision = model.config.vision_config
    larger = at_resolution(model, vision.image_size * 2)
    assert larger.config.vision_config.grid == vision.grid * 2
    other = larger.state_dict()
    differ = [n for n, v in model.state_dict().items() if other[n].shape != v.shape]
    assert differ == ["vision_model.embeddings.position_embedding.weight"]
    pixels = torch.randn(1, 3, vision.image_size * 2, vision.image_size * 2)
    assert larger.embed_images(pixels).isfinite().all()
    with torch.no_grad():
        larger.logit_scale.add_(1)
    assert not torch.equal(larger.logit_scale, model.logit_scale), "the weights are copies"


def test_a_size_that_patches_do_not_divide_is_refused() -> None:
    model = MedSiglip(tiny_medsiglip())
    with pytest.raises(InputError, match="not a multiple of patch_size"):
        at_resolution(model, model.config.vision_config.image_size + 1)
