"""Phases 2 and 3: the decoder learns text, then to speak of images.

Shapes: B batch, L positions, N images, C channels, S image side, T tokens an image, D vision
hidden_size.

Source: MedGemma (arXiv 2507.05201), section 2.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from osler.models.gemma3 import RMSNorm
from osler.models.medgemma import MedGemma
from osler.training.conversation import TrainingSequence
from osler.training.distributed import current_ranks
from osler.training.loop import Batches, Size, to_device
from osler.training.losses import token_cross_entropy


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences, to be learnt where `learn_BL`, with their images in order.

    Images are pixels, or patches that a resting tower gave and that were pooled already.
    """

    ids_BL: Tensor
    learn_BL: Tensor
    pixels_NCSS: Tensor | None = None
    pooled_NTD: Tensor | None = None


def initialise(model: MedGemma) -> None:
    """Random weights to start from: small normals, norms at one."""
    for module in model.language_model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.7)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, RMSNorm):
            nn.init.zeros_(module.weight)


def packed_batch(ids: list[list[int]], learn: list[list[bool]]) -> Batch:
    """Full rows of text."""
    return Batch(ids_BL=torch.tensor(ids), learn_BL=torch.tensor(learn))


def padded_batch(
    sequences: Sequence[TrainingSequence],
    *,
    pad: int,
    length: int,
    pixels_NCSS: Tensor | None = None,
    pooled_NTD: Tensor | None = None,
) -> Batch:
    """Pad or cut sequences on the right; causal attention never looks at the padding.

    Args:
        sequences: some with an image.
        pad: id that fills up.
        length: of every row.
        pixels_NCSS: the images of those that have one, in order.
        pooled_NTD: or their pooled patches.
    """
    ids = torch.full((len(sequences), length), pad)
    learn = torch.zeros((len(sequences), length), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        taken = min(length, len(sequence.ids))
        ids[row, :taken] = torch.tensor(sequence.ids[:taken])
        learn[row, :taken] = torch.tensor(sequence.learn[:taken])
    return Batch(ids_BL=ids, learn_BL=learn, pixels_NCSS=pixels_NCSS, pooled_NTD=pooled_NTD)


def read(model: MedGemma, batch: Batch) -> Tensor:
    """What a model makes of all positions but the last, (B, L - 1, hidden_size)."""
    soft_NTD = None
    if batch.pixels_NCSS is not None:
        soft_NTD = model.embed_images(batch.pixels_NCSS)
    elif batch.pooled_NTD is not None:
        soft_NTD = model.multi_modal_projector.project(batch.pooled_NTD)
    return model.hidden(batch.ids_BL[:, :-1], soft_NTD=soft_NTD)


def next_token_loss(model: MedGemma, batch: Batch) -> Tensor:
    """Mean cross-entropy over the tokens to be learnt; only these meet the vocabulary."""
    x_BLD = read(model, batch)
    learn_BL = batch.learn_BL[:, 1:]
    head_VD = model.language_model.embed_tokens.weight
    x_TD, ids_T = x_BLD[learn_BL], batch.ids_BL[:, 1:][learn_BL]
    # A rank's share may have nothing to learn: zero then, not zero divided by zero.
    return token_cross_entropy(x_TD, head_VD, ids_T) / max(1, len(ids_T))


def unused_images(model: MedGemma) -> Tensor | float:
    """Zero, in which all that reads images and trains has a part; for a loss of text alone.

    Ranks wait for one another's gradients and, where they share weights, for one another's use of
    them, in the same order: so a rank without an image looks at a black one before it reads.
    """
    text = {id(parameter) for parameter in model.language_model.parameters()}
    unused = [p for p in model.parameters() if p.requires_grad and id(p) not in text]
    vision = model.config.vision_config
    if not unused or vision is None:
        return 0.0
    ranks = current_ranks()
    if ranks.world == 1:
        return 0.0 * torch.stack([p.sum() for p in unused]).sum()
    shape = (1, vision.num_channels, vision.image_size, vision.image_size)
    return 0.0 * model.embed_images(torch.zeros(shape, device=ranks.device)).sum()


class DecoderTask:
    """The decoder learns text, or text about images; what rests is marked on the model.

    Args:
        model: with the weights to start from.
        batches: of this rank.
        validation: text, the same on every rank.
        captions: descriptions of images, likewise.
    """

    unit = "tokens"

    def __init__(
        self,
        model: MedGemma,
        batches: Batches[Batch],
        validation: Sequence[Batch] = (),
        captions: Sequence[Batch] = (),
    ) -> None:
        self.model = model
        self.batches = batches
        self._validation = {"val_loss": validation, "val_loss_captions": captions}

    def size(self, batch: Batch) -> Size:
        """Tokens to be learnt, tokens in all."""
        return Size(weight=int(batch.learn_BL[:, 1:].sum()), units=batch.ids_BL.numel())

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The next-token loss; without an image, the projector's gradient is zero."""
        without = batch.pixels_NCSS is None and batch.pooled_NTD is None
        zero = unused_images(self.model) if without else 0.0
        return next_token_loss(self.model, batch) + zero, {}

    def evaluate(self) -> dict[str, float]:
        """Mean loss over the validation batches, of each kind that there is."""
        device = next(self.model.parameters()).device
        figures = {}
        for name, batches in self._validation.items():
            total = weight = 0.0
            for batch in batches:
                size = self.size(batch).weight
                total += float(next_token_loss(self.model, to_device(batch, device))) * size
                weight += size
            if weight:
                figures[name] = total / weight
        return figures
