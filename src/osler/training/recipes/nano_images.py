"""The images that the nanos learn from."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from osler.ingest.image_pack import PackedImage, read_image_pack
from osler.training.images import load_squares
from osler.training.recipes.job import Job

# Shown in no phase, so that fine-tuning has something new to learn.
HELD_OUT = frozenset({"us_busi"})


def nano_images(data: Path, split: Literal["train", "val"]) -> list[PackedImage]:
    """The images of a part of the pack that the nanos may see."""
    return [item for item in read_image_pack(data, split) if item.set_name not in HELD_OUT]


def decoded(job: Job, items: list[PackedImage], split: str, side_px: int) -> Tensor:
    """All images as squares, uint8 (N, 3, S, S), decoded once and mapped from the run's folder."""
    path = job.out / f"squares-{split}-{side_px}px.npy"
    if not path.exists() and job.ranks.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, load_squares(items, side_px).numpy())
        os.replace(partial, path)
    job.ranks.wait()
    # Written to by nobody: copy on write is how torch is told so.
    return torch.from_numpy(np.load(path, mmap_mode="c"))
