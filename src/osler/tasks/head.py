"""A classifier of one's own on an image encoder: its classes and one matrix.

Shapes: N images, D embedding size, C classes.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from osler.errors import CheckpointError
from osler.inference.embed import Progress
from osler.models.safetensors_file import open_file
from osler.preprocess.json_file import read_json_object
from osler.preprocess.sources import ImageSource, source_name
from osler.tasks.answer import Classification
from osler.tasks.encoder import ImageTextEncoder, load_image_text_encoder
from osler.tasks.locate import locate

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
    weight_CD: Tensor
    bias_C: Tensor

    def probabilities(self, images_ND: Tensor) -> Tensor:
        """Probability of each class (N, C); rows sum to 1."""
        return (images_ND.float() @ self.weight_CD.T + self.bias_C).softmax(dim=1)


def save_head(head: Head, folder: Path) -> None:
    """Write a head whole: its matrix, then its description.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    values = {"encoder": head.encoder, "classes": list(head.classes)}
    tensors = {"weight": head.weight_CD.contiguous(), "bias": head.bias_C.contiguous()}
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
    stored = open_file(path.with_name(WEIGHTS_FILE))
    if stored.keys() != {"weight", "bias"}:
        raise CheckpointError(f"{path.with_name(WEIGHTS_FILE)}: holds no head")
    weight_CD, bias_C = stored["weight"].read().float(), stored["bias"].read().float()
    if weight_CD.dim() != 2 or len(weight_CD) != len(classes) or bias_C.shape != (len(classes),):
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
        self, images: Sequence[ImageSource], *, progress: Progress | None = None
    ) -> list[Classification]:
        """Say how probable each class is for each image.

        Args:
            images: as `ImageTextEncoder.embed_images` takes them.
            progress: the same.

        Raises:
            InputError: an image that cannot be read.
        """
        images_ND = torch.from_numpy(self.encoder.embed_images(images, progress=progress))
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
    dtype: torch.dtype | str | None = None,
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
