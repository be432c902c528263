"""The MedSigLIP processor against the reference, and folders that are wrong."""

import json
import shutil

import numpy as np
import pytest
from transformers import AutoProcessor

from osler.errors import CheckpointError, PromptError
from osler.preprocess.encoder_processor import EncoderProcessor
from osler.preprocess.image_settings import ImageSettings, read_image_settings
from osler.preprocess.pixels import PixelMaker
from osler.preprocess.siglip_tokenizer import SiglipTokenizer
from osler.tasks.locate import shipped_weights
from tests.preprocess.conftest import noise


@pytest.fixture
def folder(siglip_folder, tmp_path):
    shutil.copytree(siglip_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def assert_same(processor, reference) -> None:
    pictures = [noise(70, 30), noise(9, 200, seed=1), noise(224, 224, seed=2)]
    texts = ["A chest X-ray.", "", "pneumonia " * 80]
    expected = reference(
        text=texts, images=pictures, padding="max_length", truncation=True, return_tensors="np"
    )
    np.testing.assert_allclose(
        processor.pixels(pictures, squaring="stretch"),
        expected["pixel_values"],
        rtol=0,
        atol=1e-6,
    )
    np.testing.assert_array_equal(processor.ids(texts), expected["input_ids"])


def test_ids_and_pixels(encoder_processor, their_encoder_processor):
    assert_same(encoder_processor, their_encoder_processor)


def test_the_nano():
    folder = shipped_weights() / "medsiglip-nano"
    reference = AutoProcessor.from_pretrained(folder)
    assert type(reference).__name__ == "SiglipProcessor"
    maker = PixelMaker(read_image_settings(folder, ImageSettings()), "1")
    assert_same(EncoderProcessor(SiglipTokenizer.from_folder(folder), maker), reference)


def test_silent_files_mean_bicubic_here_as_in_the_reference(folder, siglip_folder):
    path = folder / "preprocessor_config.json"
    values = json.loads(path.read_text())
    del values["resample"]
    path.write_text(json.dumps(values))
    assert_same(EncoderProcessor.from_folder(folder), AutoProcessor.from_pretrained(folder))
    plain = EncoderProcessor.from_folder(siglip_folder).pixels([noise(70, 30)])
    assert (EncoderProcessor.from_folder(folder).pixels([noise(70, 30)]) != plain).any()


def test_padding_is_the_default(encoder_processor):
    assert (encoder_processor.pixels([noise(20, 60)])[0, :, 0] == -1).all()


def test_nothing_gives_empty_arrays(encoder_processor):
    assert encoder_processor.pixels([]).shape == (0, 3, 56, 56)
    assert encoder_processor.ids([]).shape == (0, 64)
    assert encoder_processor.ids([]).dtype == np.int64


def test_text_that_is_not_unicode_is_refused(encoder_processor):
    with pytest.raises(PromptError, match="surrogate"):
        encoder_processor.ids(["fine", "\ud800"])


def test_another_side_is_refused(folder):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": 448}))
    with pytest.raises(CheckpointError, match="448 for the processor, 56 for the model"):
        EncoderProcessor.from_folder(folder)


def test_a_tokenizer_larger_than_the_model_is_refused(folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["text_config"]["vocab_size"] = 63
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="64 ids, the model 63"):
        EncoderProcessor.from_folder(folder)


@pytest.mark.parametrize("name", ["spiece.model", "config.json", "preprocessor_config.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        EncoderProcessor.from_folder(folder)
