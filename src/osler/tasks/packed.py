"""Opens packed folders for the native engine."""

from pathlib import Path
from typing import TYPE_CHECKING

from osler.errors import CheckpointError, MemoryLimitError, PromptError
from osler.inference.native_model import NativeMedGemma
from osler.models.hf_config import read_medgemma_config, read_medsiglip_config
from osler.native.bpe import open_bpe
from osler.native.encoder import NativeMedSiglip
from osler.native.library import Library
from osler.native.packed_file import PACKED_FILE, PackedFile
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.packed_folder import native_library

if TYPE_CHECKING:  # it takes seconds to import, and packed models need it not
    import torch


def load_packed_medgemma(
    folder: Path, *, device: "torch.device | str" = "cpu", dtype: "torch.dtype | str | None" = None
) -> NativeMedGemma:
    """Open a packed MedGemma; every byte of it is checked.

    Args:
        folder: with `model.osler`.
        device: of the caller; only the CPU will do.
        dtype: of the caller; only None will do, as the weights' formats are in the file.

    Raises:
        CheckpointError: a damaged file, another model, or no native engine here.
        PromptError: another device, or a type.
    """
    library, file = _open(folder, "medgemma", device, dtype)
    try:
        return NativeMedGemma(read_medgemma_config(folder), file, library)
    except ValueError as error:
        raise CheckpointError(f"{file.path}: does not fit config.json ({error})") from error
    except MemoryError as error:
        raise MemoryLimitError(f"{file.path}: {error}") from error


def load_packed_medsiglip(
    folder: Path, *, device: "torch.device | str" = "cpu", dtype: "torch.dtype | str | None" = None
) -> NativeMedSiglip:
    """Open a packed MedSigLIP; arguments and errors as `load_packed_medgemma`."""
    library, file = _open(folder, "medsiglip", device, dtype)
    try:
        return NativeMedSiglip(read_medsiglip_config(folder), file, library, library.pool())
    except ValueError as error:
        raise CheckpointError(f"{file.path}: does not fit config.json ({error})") from error
    except MemoryError as error:
        raise MemoryLimitError(f"{file.path}: {error}") from error


def load_packed_tokenizer(folder: Path) -> Tokenizer:
    """Open the tokenizer of a packed MedGemma, on mapped tables where its kind allows it.

    Args:
        folder: with `model.osler`.

    Raises:
        CheckpointError: no tokenizer, a broken one, or no native engine here.
    """
    return Tokenizer.from_folder(folder, open_bpe(folder, native_library(str(folder))))


def _open(
    folder: Path, family: str, device: "torch.device | str", dtype: "torch.dtype | str | None"
) -> tuple[Library, PackedFile]:
    if str(device).partition(":")[0] != "cpu":
        raise PromptError(f"device is {str(device)!r}; packed weights run on the CPU")
    if dtype is not None:
        raise PromptError(f"dtype is {str(dtype)!r}; packed weights keep the formats of their file")
    library = native_library(str(folder))
    file = PackedFile(folder / PACKED_FILE)
    if file.about.get("family") != family:
        raise CheckpointError(f"{file.path}: holds a {file.about.get('family')}, not a {family}")
    file.verify()
    return library, file
