"""The shipped nanos: valid Hugging Face folders, in which `transformers` finds the same models."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from pydicom.data import get_testdata_file
from transformers import AutoModelForImageTextToText, AutoProcessor, SiglipModel

import osler
from osler.ingest import read_image
from osler.models.checkpoint import load_medgemma, load_medsiglip
from osler.preprocess.processor import Processor
from osler.preprocess.render import render

WEIGHTS = Path(osler.__file__).parents[2] / "weights"
QUESTION = "Describe this X-ray."


@pytest.fixture(scope="module")
def radiograph() -> PIL.Image.Image:
    """The real chest radiograph of the demonstration, as a square picture."""
    path = get_testdata_file("RG1_J2KI.dcm", download=False)
    assert path is not None
    pixels_HW3 = render(read_image(str(path)), medgemma_version="1.5")
    return PIL.Image.fromarray(pixels_HW3).resize((224, 224))


def test_transformers_answers_with_the_same_tokens(radiograph: PIL.Image.Image) -> None:
    folder = WEIGHTS / "medgemma-nano"
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "image": radiograph}, {"type": "text", "text": QUESTION}],
        }
    ]
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    prompt = Processor.from_folder(folder)(messages)
    assert inputs["input_ids"][0].tolist() == prompt.ids
    np.testing.assert_allclose(inputs["pixel_values"], prompt.pixels, atol=1e-6)

    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted = reference(**inputs).logits
        generated = reference.generate(**inputs, max_new_tokens=24, do_sample=False)
    nano = osler.load("nano", dtype="float32")
    logits = nano.logits([prompt.ids], prompt.pixels)
    assert (logits - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    answer = nano.chat(messages, max_new_tokens=24)
    assert list(answer.tokens) == generated[0, len(prompt.ids) :].tolist()
    assert "demonstration" in str(answer).lower()


def test_transformers_embeds_the_same(radiograph: PIL.Image.Image) -> None:
    folder = WEIGHTS / "medsiglip-nano"
    texts = ["a normal chest X-ray", "Pneumonia, on a chest X-ray!"]
    inputs = AutoProcessor.from_pretrained(folder)(
        text=texts, images=[radiograph], padding="max_length", return_tensors="pt"
    )
    reference = SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted = reference(**inputs)
    encoder = osler.load_encoder("nano", dtype="float32")
    images, embedded = encoder.embed_images([radiograph]), encoder.embed_texts(texts)
    np.testing.assert_allclose(images, wanted.image_embeds, atol=1e-5)
    np.testing.assert_allclose(embedded, wanted.text_embeds, atol=1e-5)


def test_the_nanos_are_small() -> None:
    decoder = load_medgemma(WEIGHTS / "medgemma-nano")
    encoder = load_medsiglip(WEIGHTS / "medsiglip-nano")
    assert decoder.config.vision_config == encoder.config.vision_config
    shared = sum(weight.numel() for weight in encoder.vision_model.parameters())
    parameters = [*decoder.parameters(), *encoder.parameters()]
    both = sum(parameter.numel() for parameter in parameters)
    assert both - shared <= 32_000_000
    files = sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file())
    assert files <= 64 * 2**20
