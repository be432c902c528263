"""From the name of a model to the folder that holds it."""

import os
import re
from pathlib import Path
from typing import Literal

from osler.errors import ModelNotFoundError
from osler.models.hf_config import CONFIG_FILE

Family = Literal["medgemma", "medsiglip"]

NANO = "nano"
PROCESSOR_FILES = ("*.json", "*.model", "*.jinja")
CHECKPOINT_FILES = ("*.safetensors", "*.osler", *PROCESSOR_FILES)
CONFIG_FILES = (CONFIG_FILE,)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def shipped_weights() -> Path:
    """The folder of the nano checkpoints: inside an installed package, else in the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "weights"
    return installed if installed.is_dir() else package.parents[1] / "weights"


def locate(
    name: str | os.PathLike[str],
    family: Family,
    files: tuple[str, ...] = CHECKPOINT_FILES,
) -> Path:
    """Find a model: the shipped nano, a local folder, or a checkpoint of the Hugging Face hub.

    Args:
        name: "nano", "medgemma-nano", "medsiglip-nano", a folder, or a hub id ("owner/name").
        family: which of the two nanos "nano" means.
        files: patterns of the files needed from the hub.

    Returns:
        A folder that exists. The hub is asked only for what its local cache does not hold.

    Raises:
        ModelNotFoundError: no such model, or no network to fetch it; says what to download.
    """
    text = os.fspath(name)
    if text in (NANO, "medgemma-nano", "medsiglip-nano"):
        folder = shipped_weights() / (f"{family}-nano" if text == NANO else text)
        if not folder.is_dir():
            raise ModelNotFoundError(f"{text}: this installation lacks its weights, {folder}")
        return folder
    folder = Path(text)
    if text and folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelNotFoundError(f"{text}: a file; a model is a folder")
    if not _HUB_ID.fullmatch(text):
        raise ModelNotFoundError(
            f"{text}: no such folder, and neither 'nano' nor a hub id such as google/medgemma-4b-it"
        )
    return _from_hub(text, files)


def _from_hub(repo_id: str, files: tuple[str, ...]) -> Path:
    # Imported here: the nano and local folders need no hub client, and it is slow to import.
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    patterns = list(files)
    try:
        return Path(snapshot_download(repo_id, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    page = f"https://huggingface.co/{repo_id}"
    try:
        return Path(snapshot_download(repo_id, allow_patterns=patterns))
    except GatedRepoError:
        reason = f"accept its terms at {page}, then run `hf auth login` and try again"
    except HfHubHTTPError as error:
        reason = f"the hub answered {error.response.status_code}; is there such a model at {page}?"
    except (LocalEntryNotFoundError, HTTPError):
        folder = repo_id.split("/")[1]
        reason = (
            f"not a folder, not in the local cache, and the hub is out of reach; accept the terms "
            f"at {page}, run `hf download {repo_id} --local-dir {folder}` where there is a "
            f"network, and give that folder as the model"
        )
    raise ModelNotFoundError(f"{repo_id}: {reason}")
