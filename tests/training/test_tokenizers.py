"""What the nano tokenizers learn from, and the files that they come in."""

import json

import jinja2
import pytest
from transformers import AutoProcessor

from osler.testing.packs import packed_image, write_image_pack, write_text_pack
from osler.training.tokenizers import (
    INSTRUCTIONS,
    pack_texts,
    train_gemma_tokenizer,
    train_siglip_tokenizer,
)


def test_only_prose_of_training_splits_is_read(tmp_path):
    write_text_pack(
        tmp_path,
        "mts_dialog",
        [
            {"split": "train", "licence": "x", "dialogue": "learnt", "contexts": ["a", "b"]},
            {"split": "val", "dialogue": "held back"},
        ],
    )
    write_text_pack(tmp_path, "medquad", [{"question": "no split", "url": "x"}])
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "medqa.jsonl.gz").write_bytes(b"never opened")
    image = packed_image("us_busi", "US", "BREAST", labels={"finding": "benign"}, text="A caption.")
    write_image_pack(tmp_path, "train", [image])
    hidden = packed_image("us_busi", "US", "BREAST", labels={"finding": "hidden"}, text="hidden")
    write_image_pack(tmp_path, "val", [hidden])
    texts = [text for text in pack_texts(tmp_path) if text not in INSTRUCTIONS]
    assert texts == ["no split", "learnt", "a", "b", "benign", "A caption."]


def test_a_text_that_is_too_short_for_the_vocabulary(tmp_path):
    with pytest.raises(ValueError, match="not 8192"):
        train_gemma_tokenizer(["Too short."], tmp_path)
    with pytest.raises(RuntimeError, match="too high"):
        train_siglip_tokenizer(["Too short."], tmp_path)


def test_the_template_refuses_turns_out_of_order(gemma_processor):
    with pytest.raises(jinja2.TemplateError, match="take turns"):
        gemma_processor.apply_chat_template([{"role": "assistant", "content": "x"}])


@pytest.fixture
def gemma_processor(tmp_path):
    train_gemma_tokenizer(["abc"], tmp_path, 378, side_px=56, image_tokens=4)
    return AutoProcessor.from_pretrained(tmp_path)


def test_sizes_go_into_the_files(gemma_processor, tmp_path):
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert settings["size"] == {"height": 56, "width": 56}
    assert gemma_processor.image_seq_length == 4
    assert len(gemma_processor.tokenizer) == 378
