"""The nano's first phase: what a network of everyday images sees in each training image.

It is asked once, about every image as it is. A tower that learns from a varied view of the image is
held against the same map, varied as the view is (`shown.varied_images`).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from tqdm import tqdm

from osler.ingest.image_pack import PackedImage
from osler.training.convolutional import MAP_CHANNELS, everyday_network
from osler.training.images import to_model_range
from osler.training.recipes.job import Job
from osler.training.recipes.nano_images import decoded, nano_images

_FILE = "maps.npy"
_SIDE_PX, _MAP_SIDE = 160, 5
_BATCH_SIZE = 32


def teacher(job: Job, out: Path) -> None:
    """Leave the maps of all training images in `model` of the folder."""
    if job.ranks.rank == 0:
        items = nano_images(job.data, "train")
        maps = out / _FILE
        write_maps(decoded(job, items, "train", _SIDE_PX), maps)
        (out / "model").mkdir(exist_ok=True)
        os.replace(maps, out / "model" / _FILE)
    job.ranks.wait()


def write_maps(squares_N3SS: Tensor, path: Path) -> None:
    """Ask the network about every image; each channel is left with mean 0 and deviation 1.

    Args:
        squares_N3SS: uint8, of 160 px.
        path: of float16 (N, 320, 5, 5).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(squares_N3SS)
    maps = open_memmap(path, "w+", np.float16, (count, MAP_CHANNELS, _MAP_SIDE, _MAP_SIDE))
    network = everyday_network()
    sums, squares = np.zeros(MAP_CHANNELS), np.zeros(MAP_CHANNELS)
    starts = range(0, count, _BATCH_SIZE)
    with torch.inference_mode():
        for start in tqdm(starts, desc="asking the teacher", mininterval=5):
            seen = network(to_model_range(squares_N3SS[start : start + _BATCH_SIZE])).numpy()
            maps[start : start + _BATCH_SIZE] = seen
            sums += seen.sum(axis=(0, 2, 3))
            squares += (seen.astype(np.float64) ** 2).sum(axis=(0, 2, 3))
    mean = sums / (count * _MAP_SIDE**2)
    deviation = np.sqrt(squares / (count * _MAP_SIDE**2) - mean**2) + 1e-6
    for start in starts:
        some = maps[start : start + _BATCH_SIZE].astype(np.float32)
        maps[start : start + _BATCH_SIZE] = (some - mean[:, None, None]) / deviation[:, None, None]
    maps.flush()


def maps_of(job: Job, items: Sequence[PackedImage]) -> Tensor:
    """The run's maps, float16 (N, 320, 5, 5), mapped from its folder."""
    path = job.out / "teacher" / "model" / _FILE
    maps = torch.from_numpy(np.load(path, mmap_mode="c"))
    assert len(maps) == len(items)
    return maps
