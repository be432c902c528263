"""Osler: the MedGemma system, where the data is.

Two functions load all there is:

    model = osler.load("nano")
    model.ask("Which body part is shown?", images=["chest.dcm"])
    encoder = osler.load_encoder("nano")
    encoder.classify(["chest.dcm"], ["normal chest X-ray", "pneumonia"])
"""

import os
from typing import TYPE_CHECKING

from osler.errors import OslerError
from osler.tasks.answer import Answer, Classification
from osler.tasks.locate import locate

if TYPE_CHECKING:
    import torch

    from osler.tasks.assistant import Assistant
    from osler.tasks.encoder import ImageTextEncoder

__version__ = "0.1.0"
__all__ = ["Answer", "Classification", "OslerError", "__version__", "load", "load_encoder"]


def load(
    name: str | os.PathLike[str] = "nano",
    *,
    device: str = "cpu",
    dtype: "torch.dtype | str | None" = None,
    version: str | None = None,
) -> "Assistant":
    """Load a MedGemma.

    Args:
        name: "nano" (ships with Osler), a folder in Hugging Face form, or a hub id such as
            "google/medgemma-4b-it".
        device: a torch device, "cpu" or "cuda".
        dtype: "float32" or "bfloat16"; None for what the checkpoint holds.
        version: "1" or "1.5", how CT slices become RGB; None for what the checkpoint says.

    Raises:
        ModelNotFoundError: no model by that name.
        CheckpointError: a folder that does not hold the model that it says.
    """
    folder = locate(name, "medgemma")
    # Imported here: torch takes seconds to import, and `import osler` or a wrong name should not.
    from osler.tasks.assistant import load_assistant

    return load_assistant(folder, os.fspath(name), device=device, dtype=dtype, version=version)


def load_encoder(
    name: str | os.PathLike[str] = "nano",
    *,
    device: str = "cpu",
    dtype: "torch.dtype | str | None" = None,
) -> "ImageTextEncoder":
    """Load a MedSigLIP.

    Args:
        name: "nano", a folder, or a hub id such as "google/medsiglip-448".
        device: as `load` takes it.
        dtype: as `load` takes it.

    Raises:
        ModelNotFoundError: no model by that name.
        CheckpointError: a folder that does not hold the model that it says.
    """
    folder = locate(name, "medsiglip")
    from osler.tasks.encoder import load_image_text_encoder

    return load_image_text_encoder(folder, os.fspath(name), device=device, dtype=dtype)
