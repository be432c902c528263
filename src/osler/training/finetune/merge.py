"""Makes one ordinary checkpoint of an adapter and its base: what `osler merge` does.

Shapes: B batch, L positions, V vocabulary.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from osler.errors import CheckpointError
from osler.models.checkpoint import open_medgemma, save_medgemma
from osler.models.lora import merge_lora
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor, Prompt
from osler.tasks.adapter import base_model, load_adapted
from osler.tasks.checkpoint_extras import carry_over, notice
from osler.tasks.locate import locate
from osler.tasks.packed_folder import check_disk
from osler.tasks.placement import torch_dtype
from osler.training.finetune.output import base_name, check_out, refuse_packed

# The most that a logit may move, where nobody says how much. A matrix and its adapter computed as
# one differ by the rounding of that one to its dtype: 24 bits, or 8.
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.25}

_TEXTS = (
    "Describe this image.",
    "Is there a pleural effusion? Answer yes or no.",
    "A 54-year-old has had a cough for two weeks and a temperature of 38.5 °C. What comes next?",
)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What became of an adapter.

    Attributes:
        folder: of the checkpoint.
        base: the model that the adapter is for.
        dtype: of the checkpoint's weights.
        largest_difference: between a logit of the checkpoint and of the adapter on its base, over
            all positions of some prompts.
        limit: the most that it might have been.
        same_choice: share of the positions whose likeliest token is the same.
    """

    folder: str
    base: str
    dtype: str
    largest_difference: float
    limit: float
    same_choice: float


def merge(
    adapter: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
    limit: float | None = None,
) -> Merged:
    """Write base and adapter as one checkpoint, unless it would answer differently.

    An adapter that was trained over a base in 4 bits ("qlora") is merged into the weights which
    these 4 bits stand for, as it has learnt what they lack.

    Args:
        adapter: a folder in PEFT's form, written by Osler or by PEFT.
        out: a new or empty folder.
        base: the model that the adapter is for; None for the one that it names.
        dtype: of the weights, "float32" or "bfloat16"; None for the base's.
        limit: the most that a logit may move; None for `LIMITS`.

    Raises:
        ModelNotFoundError: the base is not there.
        CheckpointError: an adapter of another model, a damaged file, logits that move beyond the
            limit, or a folder that cannot be written.
        UnsupportedError: an adapter of a kind that Osler does not compute.
    """
    source, target = Path(adapter), Path(out)
    check_out(target)
    name = os.fspath(base) if base is not None else base_model(source)
    folder = locate(name, "medgemma")
    refuse_packed(folder)
    chosen = _dtype(folder, dtype)
    model = load_adapted(source, folder, dtype=chosen)
    check_disk(target, sum(p.numel() for p in model.parameters()) * chosen.itemsize)
    prompts = _prompts(Processor.from_folder(folder))
    apart = [_logits(model, prompt) for prompt in prompts]
    merge_lora(model)
    whole = [_logits(model, prompt) for prompt in prompts]
    difference = max(
        (one - other).abs().max().item() for one, other in zip(apart, whole, strict=True)
    )
    most = LIMITS[chosen] if limit is None else limit
    if not difference <= most:
        raise CheckpointError(
            f"{source}: merged, it would answer differently: a logit moves by {difference:.2g}, "
            f"more than {most:.2g}; nothing is written"
        )
    save_medgemma(model, target)
    carry_over(folder, target, notice(folder))
    same = torch.cat(
        [one.argmax(-1) == other.argmax(-1) for one, other in zip(apart, whole, strict=True)], dim=1
    )
    return Merged(
        folder=str(target),
        base=base_name(name),
        dtype=str(chosen).removeprefix("torch."),
        largest_difference=difference,
        limit=most,
        same_choice=same.float().mean().item(),
    )


def _dtype(folder: Path, wanted: str | None) -> torch.dtype:
    if (asked := torch_dtype(wanted)) is not None:
        if asked not in LIMITS:
            raise CheckpointError(f"{folder}: a Gemma 3 overflows in {wanted}; take bfloat16")
        return asked
    _, stored = open_medgemma(folder)
    plain = {tensor.dtype for tensor in stored.values()} == {"F32"}
    return torch.float32 if plain else torch.bfloat16


def _prompts(processor: Processor) -> list[Prompt]:
    """What the two are compared on: questions, and where images are read, one about noise."""
    prompts = [processor([{"role": "user", "content": text}]) for text in _TEXTS]
    if processor.config.vision_config is not None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        content = [{"type": "image", "image": noise}, {"type": "text", "text": _TEXTS[0]}]
        prompts.append(processor([{"role": "user", "content": content}]))
    return prompts


@torch.inference_mode()
def _logits(model: MedGemma, prompt: Prompt) -> Tensor:
    pixels = torch.from_numpy(prompt.pixels) if len(prompt.pixels) else None
    logits_BLV: Tensor = model(torch.tensor([prompt.ids]), pixels_NCSS=pixels)
    return logits_BLV
