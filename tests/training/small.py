"""Tiny models with weights, and a data pack in small."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from osler.models.checkpoint import save_medgemma, save_medsiglip
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.testing.models import randomise
from osler.testing.packs import one_of_each_class, write_image_pack, write_text_pack
from osler.testing.tokenizers import tiny_medgemma_folder, tiny_medsiglip_folder


def medsiglip_folder(folder: Path) -> Path:
    model = MedSiglip(tiny_medsiglip_folder(folder))
    randomise(model)
    save_medsiglip(model, folder)
    return folder


def medgemma_folder(folder: Path) -> Path:
    model = MedGemma(tiny_medgemma_folder(folder))
    randomise(model)
    save_medgemma(model, folder)
    return folder


def small_pack(folder: Path) -> Path:
    """Images of every class, and the texts of the pack in a line or two."""
    write_image_pack(folder, "train", one_of_each_class())
    held_back = ("cxr_kermany", "us_busi")
    write_image_pack(folder, "val", [i for i in one_of_each_class() if i.set_name in held_back])
    visit = {"section_header": "CC", "dialogue": "Doctor: What is it?", "section_text": "A cough."}
    rows: dict[str, Sequence[dict[str, Any]]] = {
        "medquad": [{"question": "What is a virus ?", "answer": "It is very small. " * 20}] * 3,
        "mts_dialog": [visit, *[{**visit, "split": "val"}] * 20],
    }
    for name, lines in rows.items():
        write_text_pack(folder, name, lines)
    return folder
