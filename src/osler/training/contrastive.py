"""Phase 1: the image and text encoders, joined by the sigmoid loss.

Shapes: N images held, B images, M texts, C channels, S image side, L text positions, P patches,
D hidden_size.

Source: MedGemma (arXiv 2507.05201), section 2.1; SigLIP (arXiv 2303.15343).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from osler.models.medsiglip import MedSiglip
from osler.training.distributed import current_ranks
from osler.training.embeddings import sines_and_cosines, whiten
from osler.training.loop import Batches, Size, to_device
from osler.training.losses import Truths, pair_loss, truths

Tokenize = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image with a caption; see `image_rows.caption` for the keys."""

    pixels_CSS: Tensor
    caption: str
    caption_key: str
    image_key: str


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Images with a text each, and which other texts are true of them."""

    pixels_BCSS: Tensor
    ids_BL: Tensor
    known: Truths


def pair_batch(pairs: Sequence[Pair], tokenize: Tokenize) -> PairBatch:
    """Put pairs together."""
    return PairBatch(
        pixels_BCSS=torch.stack([pair.pixels_CSS for pair in pairs]),
        ids_BL=tokenize([pair.caption for pair in pairs]),
        known=truths([pair.image_key for pair in pairs], [pair.caption_key for pair in pairs]),
    )


class PairTask:
    """Images and captions, the texts of all ranks against the images of all.

    Args:
        model: with the weights to start from; what needs no gradient rests.
        batches: of this rank.
        validation: the same on every rank.
    """

    unit = "images"

    def __init__(
        self, model: MedSiglip, batches: Batches[PairBatch], validation: Sequence[PairBatch] = ()
    ) -> None:
        self.model = model
        self.batches = batches
        self._validation = validation

    def size(self, batch: PairBatch) -> Size:
        """Images, by both counts."""
        return Size(weight=len(batch.ids_BL), units=len(batch.ids_BL))

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        """The sigmoid loss over all pairs of the step."""
        world = dist.group.WORLD if current_ranks().world > 1 else None
        return self._loss(batch, world), {}

    def evaluate(self) -> dict[str, float]:
        """Mean loss over the validation batches."""
        device = self.model.logit_scale.device
        losses = [float(self._loss(to_device(b, device), None)) for b in self._validation]
        return {"val_loss": sum(losses) / len(losses)} if losses else {}

    def _loss(self, batch: PairBatch, group: "dist.ProcessGroup | None") -> Tensor:
        return pair_loss(
            self.model.embed_images(batch.pixels_BCSS),
            self.model.embed_texts(batch.ids_BL),
            self.model.logit_scale.exp(),
            self.model.logit_bias,
            batch.known,
            group=group,
        )


def initialise(model: MedSiglip, squares_N3SS: Tensor) -> None:
    """Weights to start from: small normals, biases zero, scale 10 and bias -4.

    A batch holds several images of each class, so fewer of its pairs are negative than in SigLIP,
    which starts from a bias of -10. Patches start whitened and places as sines and cosines: from
    random ones this tower needs several times as many images before it tells any two findings
    apart (bench/LOG.md).

    Args:
        model: overwritten.
        squares_N3SS: uint8 images to learn the whitening from.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.7)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith(("self_attn.out_proj.weight", "mlp.fc2.weight")):
            nn.init.normal_(parameter, std=0.02)
    nn.init.normal_(model.vision_head.probe, std=0.1)
    nn.init.constant_(model.logit_scale, 2.3026)
    nn.init.constant_(model.logit_bias, -4.0)
    embeddings = model.vision_model.embeddings
    whiten(embeddings.patch_embedding, squares_N3SS)
    grid = model.config.vision_config.grid
    with torch.no_grad():
        places = sines_and_cosines(grid, embeddings.position_embedding.embedding_dim)
        embeddings.position_embedding.weight.copy_(places * 0.5)
