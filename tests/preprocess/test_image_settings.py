"""The files that say how to prepare images."""

import json

import pytest
from PIL.Image import Resampling

from osler.errors import CheckpointError
from osler.preprocess.image_settings import ImageSettings, read_image_settings

RELEASED = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_pan_and_scan": None,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_processor_type": "Gemma3ImageProcessor",
    "image_seq_length": 256,
    "image_std": [0.1, 0.2, 0.3],
    "pan_and_scan_max_num_crops": None,
    "pan_and_scan_min_crop_size": None,
    "pan_and_scan_min_ratio_to_activate": None,
    "processor_class": "Gemma3Processor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 896, "width": 896},
}


def read(folder, values, name="preprocessor_config.json") -> ImageSettings:
    (folder / name).write_text(json.dumps(values))
    return read_image_settings(folder, ImageSettings())


def test_a_released_file_is_read_and_null_means_the_default(tmp_path):
    assert read(tmp_path, RELEASED) == ImageSettings(
        side_px=896,
        resample=Resampling.BICUBIC,
        image_mean=(0.5, 0.4, 0.3),
        image_std=(0.1, 0.2, 0.3),
    )


def test_an_empty_file_means_all_defaults(tmp_path):
    assert read(tmp_path, {}) == ImageSettings()


def test_own_pan_and_scan_rules_are_read(tmp_path):
    own = {
        "pan_and_scan_min_crop_size": 100,
        "pan_and_scan_max_num_crops": 2,
        "pan_and_scan_min_ratio_to_activate": 1.5,
    }
    assert read(tmp_path, RELEASED | own).pan_and_scan_min_ratio_to_activate == 1.5
    assert read(tmp_path, RELEASED | own).pan_and_scan_min_crop_size == 100
    assert read(tmp_path, RELEASED | own).pan_and_scan_max_num_crops == 2


def test_the_part_of_processor_config_goes_first(tmp_path):
    read(tmp_path, RELEASED)
    nested = {"processor_class": "Gemma3Processor", "image_processor": RELEASED | {"size": 448}}
    assert read(tmp_path, nested, "processor_config.json").side_px == 448


def test_one_number_is_meant_for_all_channels(tmp_path):
    assert read(tmp_path, {"image_mean": 0, "image_std": 1}).image_mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"do_normalize": False}, "do_normalize is false"),
        ({"size": {"height": 4, "width": 5}}, "squares only"),
        ({"size": {"shortest_edge": 4}}, "size"),
        ({"size": -1}, "size is -1, out of range"),
        ({"resample": 17}, "resample is 17"),
        ({"image_mean": [0.5, 0.5]}, "2 entries"),
        ({"image_std": [0.5, 0.5, 0.0]}, "image_std is 0.0"),
        ({"rescale_factor": "x"}, "rescale_factor is 'x'"),
        ({"pan_and_scan_max_num_crops": 2.5}, "2.5, not a number"),
        ({"image_mean": [True, 0.5, 0.5]}, "True"),
    ],
)
def test_what_is_not_done_is_refused_with_file_and_field(tmp_path, change, reason):
    with pytest.raises(CheckpointError, match=rf"preprocessor_config.json: .*{reason}"):
        read(tmp_path, RELEASED | change)


@pytest.mark.parametrize("text", ["", "{", "[1]", "nul", "[" * 100_000])
def test_a_broken_file_is_refused(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json: "):
        read_image_settings(tmp_path, ImageSettings())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json: no such file"):
        read_image_settings(tmp_path, ImageSettings())
    (tmp_path / "processor_config.json").write_text('{"image_processor": 3}')
    with pytest.raises(CheckpointError, match="not an object"):
        read_image_settings(tmp_path, ImageSettings())
