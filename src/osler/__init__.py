"""Osler: the MedGemma system, where the data is.

Two functions load all there is:

    model = osler.load("nano")
    model.ask("Which body part is shown?", images=["chest.dcm"])
    encoder = osler.load_encoder("nano")
    encoder.classify(["chest.dcm"], ["normal chest X-ray", "pneumonia"])
"""

import os
import warnings
from typing import TYPE_CHECKING, overload

from osler.errors import OslerError
from osler.tasks.answer import Answer, Classification
from osler.tasks.locate import locate

if TYPE_CHECKING:
    import torch

    from osler.tasks.assistant import Assistant
    from osler.tasks.encoder import ImageTextEncoder
    from osler.tasks.remote import RemoteAssistant

__version__ = "0.1.0"
__all__ = ["Answer", "Classification", "OslerError", "__version__", "load", "load_encoder"]


@overload
def load(
    name: str | os.PathLike[str] | None = None,
    *,
    device: str = "cpu",
    dtype: "torch.dtype | str | None" = None,
    version: str | None = None,
) -> "Assistant": ...


@overload
def load(
    name: str | os.PathLike[str] | None = None,
    *,
    version: str | None = None,
    engine: str,
    engine_token: str | None = None,
) -> "RemoteAssistant": ...


def load(
    name: str | os.PathLike[str] | None = None,
    *,
    device: str = "cpu",
    dtype: "torch.dtype | str | None" = None,
    version: str | None = None,
    engine: str | None = None,
    engine_token: str | None = None,
) -> "Assistant | RemoteAssistant":
    """Load a MedGemma, or reach one that is loaded elsewhere.

    Args:
        name: "nano" (ships with Osler, and is meant by None), a folder in Hugging Face form, or a
            hub id such as "google/medgemma-4b-it". With an engine, the model's name there; None
            where it has only one.
        device: a torch device, "cpu" or "cuda".
        dtype: "float32" or "bfloat16"; None for what the checkpoint holds.
        version: "1" or "1.5", how CT slices become RGB; None for what the checkpoint says.
        engine: the address of a server with an OpenAI API, such as "http://127.0.0.1:8000". Images
            and texts are sent there; it should be on this machine, or https.
        engine_token: the server's bearer token.

    Raises:
        ModelNotFoundError: no model by that name.
        CheckpointError: a folder that does not hold the model that it says.
        RemoteEngineError: the server is out of reach, or refuses.
    """
    if engine is not None:
        from osler.inference.remote_address import remote_address
        from osler.tasks.remote import connect

        address = remote_address(engine, engine_token)
        if address.warning is not None:
            warnings.warn(address.warning, stacklevel=2)
        return connect(address, None if name is None else os.fspath(name), version=version)
    name = "nano" if name is None else name
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
