"""What every test runs under, and tiny models with random weights for the tests of the faces."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from pydicom.data import get_testdata_file

from osler.models.checkpoint import save_medgemma, save_medsiglip
from osler.models.config import MedSiglipConfig, medgemma_nano, medsiglip_nano
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.tasks.checkpoint_extras import carry_over
from osler.tasks.locate import shipped_weights
from osler.testing.models import randomise, tiny_text, tiny_vision

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the hub, whatever the machine can reach
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads warn when a test starts a process
torch.set_num_threads(1)  # in models this small, threads only wait for one another
# A shell's background job ignores interrupts, and so would the commands that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

NOTICE = "Random weights."
# As many image tokens as the nanos', from the same square, so that their processors' files fit.
VISION = replace(tiny_vision(), image_size=224, patch_size=32)


@pytest.fixture(scope="session")
def medgemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MedGemma: random weights, the nano's tokenizer and square."""
    text = replace(tiny_text(), vocab_size=8192, max_position_embeddings=8192)
    model = MedGemma(replace(medgemma_nano(), text_config=text, vision_config=VISION))
    randomise(model)
    folder = tmp_path_factory.mktemp("medgemma")
    save_medgemma(model, folder)
    carry_over(shipped_weights() / "medgemma-nano", folder, NOTICE)
    return folder


@pytest.fixture(scope="session")
def medsiglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MedSigLIP: random weights, the nano's tokenizer and square."""
    text = replace(
        medsiglip_nano().text_config,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=2,
        projection_size=32,
    )
    model = MedSiglip(MedSiglipConfig(text_config=text, vision_config=VISION))
    randomise(model)
    model.logit_scale.data.fill_(math.log(50))
    folder = tmp_path_factory.mktemp("medsiglip")
    save_medsiglip(model, folder)
    carry_over(shipped_weights() / "medsiglip-nano", folder, NOTICE)
    return folder


@pytest.fixture(scope="session")
def radiograph() -> Path:
    """A real chest radiograph, DICOM."""
    path = get_testdata_file("RG1_J2KI.dcm", download=False)
    assert isinstance(path, str)
    return Path(path)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colour picture, 60 wide and 40 high."""
    path = tmp_path_factory.mktemp("pictures") / "colours.png"
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Picture.fromarray(rgb).save(path)
    return path
