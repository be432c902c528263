"""The whole way from a picture to tokens and vectors, beside `transformers` on a saved folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Picture

import osler

QUESTION = "What is shown?"


@pytest.fixture(autouse=True)
def _no_progress_bars() -> None:
    transformers.utils.logging.disable_progress_bar()


def test_a_saved_medgemma_answers_the_same(
    medgemma_folder: Path, picture: Path, tmp_path: Path
) -> None:
    model = osler.load(medgemma_folder)
    model.save(tmp_path)
    content = [{"type": "image", "image": str(picture)}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}]
    ours = model.chat(messages, squaring="stretch", max_new_tokens=12)

    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    reference = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path)
    inputs = processor.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = reference.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert output[0, inputs["input_ids"].shape[1] :].tolist() == list(ours.tokens)
    assert len(set(ours.tokens)) > 3  # one token over and over would prove little


def test_a_saved_medsiglip_embeds_the_same(medsiglip_folder: Path, tmp_path: Path) -> None:
    texts = ["A normal chest X-ray.", "Pneumonia!"]
    encoder = osler.load_encoder(medsiglip_folder)
    encoder.save(tmp_path)
    square = Picture.fromarray(np.full((224, 224, 3), 90, dtype=np.uint8))
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    reference = transformers.SiglipModel.from_pretrained(tmp_path)
    inputs = processor(
        text=texts, images=[square], padding="max_length", truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        output = reference(**inputs)
    for ours, theirs in (
        (encoder.embed_texts(texts), output.text_embeds),
        (encoder.embed_images([np.asarray(square)]), output.image_embeds),
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
