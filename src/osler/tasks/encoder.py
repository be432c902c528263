"""An image and text encoder: embeddings into one space, and classification without training.

Shapes: N images or texts, D embedding size, C classes.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from osler.errors import CheckpointError, PromptError
from osler.inference import embed
from osler.inference.embed import EmbeddingModel, Progress
from osler.models.config import MedSiglipConfig
from osler.native.encoder import NativeMedSiglip
from osler.preprocess.encoder_processor import EncoderProcessor
from osler.preprocess.slides import AT_10X, SlideView
from osler.preprocess.sources import ImageSource, source_name
from osler.tasks.answer import Classification
from osler.tasks.checkpoint_extras import carry_over, notice
from osler.tasks.packed import load_packed_medsiglip
from osler.tasks.packed_folder import is_packed
from osler.tasks.slide_images import find_slide, slide_patches

if TYPE_CHECKING:  # it takes seconds to import, and packed models need it not
    import torch

    from osler.models.medsiglip import MedSiglip


class ImageTextEncoder:
    """A MedSigLIP with its processor; made by `osler.load_encoder`.

    Attributes:
        model: the weights, in torch or packed.
        name: what it was loaded by.
        folder: where it was loaded from.
        notice: what its results say about it.
    """

    def __init__(self, model: "MedSiglip | NativeMedSiglip", *, name: str, folder: Path) -> None:
        self.model = model
        self.name = name
        self.folder = folder
        self.notice = notice(folder)

    @property
    def config(self) -> MedSiglipConfig:
        """Sizes of both towers."""
        return self.model.config

    @cached_property
    def _embedder(self) -> EmbeddingModel:
        if isinstance(self.model, NativeMedSiglip):
            return self.model
        from osler.inference.torch_encoder import TorchEncoder

        return TorchEncoder(self.model)

    @cached_property
    def processor(self) -> EncoderProcessor:
        """From images and texts to pixels and ids; read when first needed.

        Raises:
            CheckpointError: the folder lacks a tokenizer, or it contradicts the model.
        """
        return EncoderProcessor.from_folder(self.folder)

    def embed_images(
        self,
        images: Sequence[ImageSource],
        *,
        slides: SlideView = AT_10X,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Embed images; a few at a time are in memory.

        A whole slide stands where its patches point on average.

        Args:
            images: paths of pictures, DICOM files or whole slides, PIL images, uint8 RGB arrays
                `(H, W, 3)`, or `Image` records.
            slides: how whole slides are looked at.
            progress: called with the number of images done so far.

        Returns:
            float32 (N, D), rows of length 1.

        Raises:
            InputError: an image that cannot be read.
        """
        if isinstance(images, str | os.PathLike):
            raise PromptError("images is a list of images: [path]")
        slide_at = {
            place: found
            for place, image in enumerate(images)
            if (found := find_slide(image)) is not None
        }
        plain = [place for place in range(len(images)) if place not in slide_at]
        rows_ND = np.empty((len(images), self.config.text_config.projection_size), np.float32)
        rows_ND[plain] = embed.embed_images(
            self._embedder, self.processor, [images[place] for place in plain], progress=progress
        )
        for done, (place, found) in enumerate(slide_at.items(), start=len(plain) + 1):
            patches = slide_patches(found, slides)
            mean_D = embed.embed_images(self._embedder, self.processor, patches).mean(axis=0)
            rows_ND[place] = mean_D / np.linalg.norm(mean_D)
            if progress is not None:
                progress(done)
        return rows_ND

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; what is beyond the encoder's positions (64 tokens) is cut off.

        Args:
            texts: a label, a caption, a sentence of a report.

        Returns:
            float32 (N, D), rows of length 1.
        """
        if isinstance(texts, str):
            raise PromptError("texts is a list of texts: [text]")
        return embed.embed_texts(self._embedder, self.processor, texts)

    def classify(
        self,
        images: Sequence[ImageSource],
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        *,
        slides: SlideView = AT_10X,
        progress: Progress | None = None,
    ) -> list[Classification]:
        """Say how well each of some labels fits each image, without training.

        A label stands where its prompts point on average. The probabilities are the softmax of the
        model's logits, so they compare the labels given and no others.

        Args:
            images: as `embed_images` takes them.
            labels: labels that are their own prompts, or for each label its prompts, such as
                `{"normal": ["normal chest X-ray", "clear lungs"], "pneumonia": ["pneumonia"]}`.
            slides: as `embed_images` takes it.
            progress: as `embed_images` takes it.

        Returns:
            One result an image.

        Raises:
            InputError: an image that cannot be read, or fewer than two labels.

        Source: SigLIP (arXiv 2303.15343) for the scale; prompt ensembles as in CLIP
            (arXiv 2103.00020), section 3.1.4.
        """
        prompts_of = labels if isinstance(labels, Mapping) else {label: [label] for label in labels}
        classes_CD = self._classes(prompts_of)
        images_ND = self.embed_images(images, slides=slides, progress=progress)
        probabilities_NC = self._compare(images_ND, classes_CD)
        return [
            Classification(
                source=source_name(image),
                probabilities=dict(zip(prompts_of, row, strict=True)),
                notice=self.notice,
            )
            for image, row in zip(images, probabilities_NC.tolist(), strict=True)
        ]

    def compare(
        self, images_ND: NDArray[np.float32], labels: Mapping[str, Sequence[str]]
    ) -> NDArray[np.float64]:
        """Classify images that are embedded already; see `classify`.

        Args:
            images_ND: what `embed_images` made of them.
            labels: for each label its prompts.

        Returns:
            The probability of each label (N, C); rows sum to 1.

        Raises:
            PromptError: fewer than two labels, or one without prompts.
        """
        return self._compare(images_ND, self._classes(labels))

    def _classes(self, labels: Mapping[str, Sequence[str]]) -> NDArray[np.float32]:
        """Where each label's prompts point on average: unit vectors (C, D)."""
        if len(labels) < 2:
            raise PromptError("labels: two or more that differ are needed to choose between")
        if empty := [label for label, prompts in labels.items() if not prompts]:
            raise PromptError(f"labels: {empty[0]!r} has no prompts")
        mean_CD = np.stack([self.embed_texts(prompts).mean(0) for prompts in labels.values()])
        unit_CD: NDArray[np.float32] = mean_CD / np.linalg.norm(mean_CD, axis=1, keepdims=True)
        return unit_CD

    def _compare(
        self, images_ND: NDArray[np.float32], classes_CD: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        # The model's bias is the same for all classes: a softmax does not see it.
        logits_NC = images_ND.astype(np.float64) @ classes_CD.T * self._embedder.scale
        odds_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        probabilities_NC: NDArray[np.float64] = odds_NC / odds_NC.sum(axis=1, keepdims=True)
        return probabilities_NC

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Save a Hugging Face folder: weights, configuration, and the processor's own files.

        Raises:
            CheckpointError: it cannot be written, or the model is packed.
        """
        target = Path(folder)
        if isinstance(self.model, NativeMedSiglip):
            raise CheckpointError(
                f"{self.folder}: packed weights cannot be saved; copy the folder, or save the "
                "checkpoint that it was made of"
            )
        from osler.models.checkpoint import save_medsiglip

        save_medsiglip(self.model, target)
        carry_over(self.folder, target, self.notice)


def load_image_text_encoder(
    folder: Path,
    name: str,
    *,
    device: "torch.device | str" = "cpu",
    dtype: "torch.dtype | str | None" = None,
) -> ImageTextEncoder:
    """See `osler.load_encoder`."""
    if is_packed(folder):
        packed = load_packed_medsiglip(folder, device=device, dtype=dtype)
        return ImageTextEncoder(packed, name=name, folder=folder)
    from osler.models.checkpoint import load_medsiglip
    from osler.tasks.placement import torch_device, torch_dtype

    model = load_medsiglip(folder, dtype=torch_dtype(dtype), device=torch_device(device))
    return ImageTextEncoder(model, name=name, folder=folder)
