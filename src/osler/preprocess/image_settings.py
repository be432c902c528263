"""What a checkpoint's own files say about preparing images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import PIL.Image
from PIL.Image import Resampling

from osler.errors import CheckpointError
from osler.preprocess.json_file import read_json_object, read_json_object_if_there

Number = TypeVar("Number", int, float)
Rgb = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Sizes and scales, as `transformers`' image processors mean them.

    Attributes:
        side_px: the square that the model sees.
        resample: Pillow's filter.
        rescale_factor: brings 0..255 to 0..1.
        image_mean: of each channel after rescaling; taken away.
        image_std: of each channel after rescaling; divided by.
        pan_and_scan_min_crop_size: in pixels of the image; smaller crops are not made.
        pan_and_scan_max_num_crops: along the long side.
        pan_and_scan_min_ratio_to_activate: of the long side to the short.
    """

    side_px: int = 224
    resample: Resampling = Resampling.BILINEAR
    rescale_factor: float = 1 / 255
    image_mean: Rgb = (0.5, 0.5, 0.5)
    image_std: Rgb = (0.5, 0.5, 0.5)
    pan_and_scan_min_crop_size: int = 256
    pan_and_scan_max_num_crops: int = 4
    pan_and_scan_min_ratio_to_activate: float = 1.2


def read_image_settings(folder: Path, default: ImageSettings) -> ImageSettings:
    """Read `preprocessor_config.json`, or that part of `processor_config.json`, which goes first.

    Args:
        folder: a Hugging Face folder.
        default: what a file means by leaving a field out or null.

    Raises:
        CheckpointError: neither file is there, or it asks for what Osler does not do.
    """
    path = folder / "processor_config.json"
    values = read_json_object_if_there(path).get("image_processor")
    if values is None:
        path = folder / "preprocessor_config.json"
        values = read_json_object(path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: image_processor is not an object")
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if values.get(step) is False:
            raise CheckpointError(f"{path}: {step} is false; Osler always does it")
    field = _Fields(values, path)
    return ImageSettings(
        side_px=field.side(default.side_px),
        resample=field.resampling(default.resample),
        rescale_factor=field.number("rescale_factor", default.rescale_factor),
        image_mean=field.rgb("image_mean", default.image_mean),
        image_std=field.rgb("image_std", default.image_std, above=0.0),
        pan_and_scan_min_crop_size=field.number(
            "pan_and_scan_min_crop_size", default.pan_and_scan_min_crop_size
        ),
        pan_and_scan_max_num_crops=field.number(
            "pan_and_scan_max_num_crops", default.pan_and_scan_max_num_crops
        ),
        pan_and_scan_min_ratio_to_activate=field.number(
            "pan_and_scan_min_ratio_to_activate", default.pan_and_scan_min_ratio_to_activate
        ),
    )


@dataclass(frozen=True)
class _Fields:
    """The fields of one file, with its name for messages."""

    values: Mapping[str, Any]
    path: Path

    def number(self, name: str, default: Number) -> Number:
        value = self.values.get(name)
        return default if value is None else self._checked(name, value, type(default), above=0)

    def rgb(self, name: str, default: Rgb, above: float = -math.inf) -> Rgb:
        value = self.values.get(name)
        channels = default if value is None else value
        if not isinstance(channels, list | tuple):
            channels = [channels] * 3
        if len(channels) != 3:
            raise CheckpointError(f"{self.path}: {name} has {len(channels)} entries, not 3")
        red, green, blue = (self._checked(name, one, float, above) for one in channels)
        return red, green, blue

    def side(self, default: int) -> int:
        size = self.values.get("size")
        if isinstance(size, dict):
            sides = [size.get("height"), size.get("width")]
        else:
            sides = [default if size is None else size] * 2
        if sides[0] != sides[1]:
            raise CheckpointError(f"{self.path}: size is {size!r}; Osler makes squares only")
        return self._checked("size", sides[0], int, above=0)

    def resampling(self, default: Resampling) -> Resampling:
        value = self.values.get("resample")
        try:
            return default if value is None else PIL.Image.Resampling(value)
        except ValueError:
            raise CheckpointError(f"{self.path}: resample is {value!r}, no filter") from None

    def _checked(self, name: str, value: Any, kind: type[Number], above: float) -> Number:
        allowed = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise CheckpointError(f"{self.path}: {name} is {value!r}, not a number")
        if not (math.isfinite(value) and value > above):
            raise CheckpointError(f"{self.path}: {name} is {value!r}, out of range")
        return kind(value)
