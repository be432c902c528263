"""The MedGemma processor apart from parity: versions, squares, digests, wrong folders."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from osler.errors import CheckpointError, PromptError, UnreadableFileError
from osler.ingest.image import Image
from osler.models.hf_config import CONFIG_FILE, medgemma_json
from osler.preprocess.processor import Processor
from osler.testing.models import tiny_medgemma_text
from tests.preprocess.conftest import noise


def ask(*images, text="What is it?"):
    items = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*items, {"type": "text", "text": text}]}]


@pytest.fixture
def folder(gemma_folder, tmp_path):
    shutil.copytree(gemma_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def ct() -> Image:
    values = np.linspace(-1500, 1500, 56 * 56, dtype=np.float32).reshape(56, 56)
    return Image(
        values=values, space="modality", source="ct", sha256="c" * 64, decoder="t", modality="CT"
    )


def test_padding_is_the_default(processor):
    wide = noise(20, 60)
    padded = processor(ask(wide)).pixels
    assert (padded[0, :, 0] == -1).all()
    assert not (processor(ask(wide), squaring="stretch").pixels[0, :, 0] == -1).all()


def test_seen_is_what_goes_in(processor):
    wide = noise(300, 700)
    squares = processor.seen(wide, pan_and_scan=True)
    assert [square.shape for square in squares] == [(56, 56, 3)] * 3
    pixels = processor(ask(wide), pan_and_scan=True).pixels
    back = np.rint((pixels + 1) * 127.5).astype(np.uint8)
    np.testing.assert_array_equal(back, np.moveaxis(np.stack(squares), 3, 1))
    assert len(processor.seen(wide)) == 1
    assert processor.seen(wide, squaring="stretch")[0][0].any()


def test_the_version_chooses_the_windows(folder):
    first, second = (Processor.from_folder(folder, version=v).seen(ct())[0] for v in ("1", "1.5"))
    assert (first[..., 0] != second[..., 0]).any()
    np.testing.assert_array_equal(first[..., 1:], second[..., 1:])
    assert Processor.from_folder(folder, version="1.5").config.medgemma_version == "1.5"


def test_an_unknown_version_is_refused(folder):
    with pytest.raises(PromptError, match="version is '2'"):
        Processor.from_folder(folder, version="2")


def test_digests_are_of_the_files_in_reading_order(processor, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for index, path in enumerate(paths):
        noise(4, 4, seed=index).save(path)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert processor(ask(paths[1], str(paths[0]))).input_sha256 == (digests[1], digests[0])
    assert processor(ask(ct())).input_sha256 == ("c" * 64,)


def test_a_file_that_is_no_image_is_named(processor, tmp_path):
    path = tmp_path / "note.dcm"
    path.write_text("hello")
    with pytest.raises(UnreadableFileError, match=r"note\.dcm"):
        processor(ask(path))
    with pytest.raises(UnreadableFileError, match="no such file"):
        processor.seen(tmp_path / "missing.png")


def test_a_prompt_can_become_a_tensor_without_a_copy(processor):
    assert processor(ask(noise(9, 9))).pixels.flags.writeable
    assert processor(ask()).pixels.shape == (0, 3, 56, 56)


def test_a_model_without_a_tower_reads_text_only(folder):
    values = medgemma_json(tiny_medgemma_text(), "float32")[CONFIG_FILE]
    (folder / CONFIG_FILE).write_text(json.dumps(values | {"vocab_size": 480}))
    (folder / "preprocessor_config.json").unlink()
    processor = Processor.from_folder(folder)
    prompt = processor(ask())
    assert len(prompt.ids) > 5
    assert len(prompt.pixels) == 0
    for call in (lambda: processor(ask(noise(3, 3))), lambda: processor.seen(noise(3, 3))):
        with pytest.raises(PromptError, match="text only"):
            call()


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("preprocessor_config.json", {"size": 224}, "side of an image is 224 .* 56 for"),
        ("processor_config.json", {"image_seq_length": 256}, "number of tokens .* 256 .* 4 for"),
        ("config.json", {"image_token_index": 262_144}, "image token is 479 .* 262144"),
        ("config.json", {"boi_token_index": 3}, "start of an image is 477 .* 3 for"),
        ("config.json", {"eoi_token_index": 3}, "end of an image is 478 .* 3 for"),
        ("tokenizer_config.json", {"image_token": "<nowhere>"}, "no piece '<nowhere>'"),
    ],
)
def test_files_that_contradict_each_other_are_refused(folder, name, fields, reason):
    change(folder / name, **fields)
    with pytest.raises(CheckpointError, match=reason):
        Processor.from_folder(folder)


def test_a_tokenizer_larger_than_the_model_is_refused(folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["text_config"]["vocab_size"] = 479
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="480 ids, the model 479"):
        Processor.from_folder(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "preprocessor_config.json", "tokenizer_config.json"]
)
def test_a_broken_file_is_named(folder, name):
    (folder / name).write_text("{")
    with pytest.raises(CheckpointError, match=name):
        Processor.from_folder(folder)


def test_the_room_needs_no_torch():
    code = (
        "import sys; import osler.preprocess.processor, osler.preprocess.encoder_processor; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
