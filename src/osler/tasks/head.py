"""A classifier of one's own on an image encoder: its classes and one matrix.

Shapes: N images, D embedding size, C classes.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from osler.errors import CheckpointError, CorruptFileError
from osler.inference.embed import Progress
from osler.preprocess.json_file import read_json_object
from osler.preprocess.slides import AT_10X, SlideView
from osler.preprocess.sources import ImageSource, source_name
from osler.tasks.answer import Classification
from osler.tasks.encoder import ImageTextEncoder, load_image_text_encoder
from osler.tasks.locate import locate

if TYPE_CHECKING:  # it takes seconds to import, and packed models need it not
    import torch

HEAD_FILE = "head.json"
WEIGHTS_FILE = "head.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """Multinomial logistic regression over unit embeddings.

    Attributes:
        encoder: the MedSigLIP whose embeddings it takes, as `osler.load_encoder` takes it.
        classes: names, in the order of the rows.
        weight_CD: float32.
        bias_C: float32.
    """

    encoder: str
    classes: tuple[str, ...]
    weight_CD: NDArray[np.float32]
    bias_C: NDArray[np.float32]

    def probabilities(self, images_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of each class (N, C); rows sum to 1."""
        logits_NC = images_ND @ self.weight_CD.T + self.bias_C
        odds_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        return np.asarray(odds_NC / odds_NC.sum(axis=1, keepdims=True), np.float32)


def save_head(head: Head, folder: Path) -> None:
    """Write a head whole: its matrix, then its description.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    values = {"encoder": head.encoder, "classes": list(head.classes)}
    tensors = {
        "weight": np.ascontiguousarray(head.weight_CD, np.float32),
        "bias": np.ascontiguousarray(head.bias_C, np.float32),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as name:
            staging = Path(name)
            text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
            (staging / HEAD_FILE).write_text(text, encoding="utf-8")
            (staging / WEIGHTS_FILE).touch()
            mode = (staging / WEIGHTS_FILE).stat().st_mode
            save_file(tensors, staging / WEIGHTS_FILE)
            (staging / WEIGHTS_FILE).chmod(mode)  # the library lets only its owner read it
            for file in (WEIGHTS_FILE, HEAD_FILE):
                (staging / file).replace(folder / file)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from error


def load_head(folder: str | os.PathLike[str]) -> Head:
    """Read what `save_head` wrote.

    Raises:
        CheckpointError: a file is missing or damaged, or the two do not fit together.
    """
    path = Path(folder) / HEAD_FILE
    values = read_json_object(path)
    encoder, classes = values.get("encoder"), values.get("classes")
    if not isinstance(encoder, str) or not isinstance(classes, list):
        raise CheckpointError(f"{path}: names no encoder, or no classes")
    weights = path.with_name(WEIGHTS_FILE)
    try:
        stored = load_file(weights)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CorruptFileError(f"{weights}: not a safetensors file ({reason})") from error
    if stored.keys() != {"weight", "bias"}:
        raise CheckpointError(f"{weights}: holds no head")
    weight_CD, bias_C = (np.asarray(stored[name], np.float32) for name in ("weight", "bias"))
    if weight_CD.ndim != 2 or len(weight_CD) != len(classes) or bias_C.shape != (len(classes),):
        raise CheckpointError(f"{path}: its classes do not fit {WEIGHTS_FILE}")
    return Head(
        encoder=encoder, classes=tuple(map(str, classes)), weight_CD=weight_CD, bias_C=bias_C
    )


class HeadClassifier:
    """An encoder with a head on it.

    Raises:
        CheckpointError: the head is for embeddings of another size.
    """

    def __init__(self, encoder: ImageTextEncoder, head: Head) -> None:
        size = encoder.config.vision_config.hidden_size
        if head.weight_CD.shape[1] != size:
            raise CheckpointError(
                f"the head takes embeddings of {head.weight_CD.shape[1]} values, "
                f"{encoder.name} gives {size}"
            )
        self.encoder = encoder
        self.head = head

    def classify(
        self,
        images: Sequence[ImageSource],
        *,
        slides: SlideView = AT_10X,
        progress: Progress | None = None,
    ) -> list[Classification]:
        """Say how probable each class is for each image.

        Args:
            images: as `ImageTextEncoder.embed_images` takes them.
            slides: the same.
            progress: the same.

        Raises:
            InputError: an image that cannot be read.
        """
        images_ND = self.encoder.embed_images(images, slides=slides, progress=progress)
        return [
            Classification(
                source=source_name(image),
                probabilities=dict(zip(self.head.classes, row, strict=True)),
                notice=self.encoder.notice,
            )
            for image, row in zip(images, self.head.probabilities(images_ND).tolist(), strict=True)
        ]


def load_classifier(
    folder: str | os.PathLike[str],
    *,
    encoder: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    dtype: "torch.dtype | str | None" = None,
) -> HeadClassifier:
    """Load a head with its encoder.

    Args:
        folder: of the head.
        encoder: another place of the same encoder; None for where it was when the head was made.
        device: as `osler.load_encoder` takes it.
        dtype: the same.

    Raises:
        ModelNotFoundError: the encoder is not where it was.
        CheckpointError: a damaged file, or a head that does not fit its encoder.
    """
    head = load_head(folder)
    name = os.fspath(encoder) if encoder is not None else head.encoder
    loaded = load_image_text_encoder(locate(name, "medsiglip"), name, device=device, dtype=dtype)
    return HeadClassifier(loaded, head)
