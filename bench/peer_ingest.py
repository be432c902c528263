"""What others do to make a model's input of DICOM files: pydicom with Pillow, or MONAI's loader.

    PYTHON bench/peer_ingest.py pydicom|monai|decoding JOBS.json

JOBS.json has, for each job, "files" (paths), "side" and, for a series, "most": how many slices to
take of all. It prints one line of JSON, seconds by job, and leaves the last pixels of each beside
JOBS.json; "decoding" does nothing else, and leaves none. Two processes write into shared memory, so
that no result is pickled: the fastest that could be had without Osler. The windows are MedGemma
1.5's, as in Osler's README.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from functools import cache
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.pixels.processing import apply_rescale

Values = NDArray[Any]
_WINDOWS_HU = ((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0))


def _levels(values: Values, low: float, high: float) -> Values:
    return np.rint((np.clip(values, low, high) - low) / (high - low) * 255).astype(np.uint8)


def _colours(values: Values, modality: str) -> Values:
    windows = _WINDOWS_HU if modality == "CT" else [(values.min(), values.max())] * 3
    if modality != "CT":
        return np.repeat(_levels(values, *windows[0])[..., None], 3, axis=-1)
    return np.stack([_levels(values, *window) for window in windows], axis=-1)


def with_pydicom(path: str, side: int) -> Values:
    """float32 (3, S, S), -1 to 1."""
    ds = dcmread(path)
    values = np.asarray(apply_rescale(ds.pixel_array, ds), np.float32)
    height, width = values.shape
    longest = max(height, width)
    top, left = (longest - height) // 2, (longest - width) // 2
    square = np.zeros((longest, longest, 3), np.uint8)
    square[top : top + height, left : left + width] = _colours(values, ds.Modality)
    resized = Image.fromarray(square).resize((side, side), Image.Resampling.BILINEAR)
    return ((np.asarray(resized, np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)


@cache
def _monai(side: int) -> tuple[Any, Any]:
    import torch
    from monai.transforms import LoadImage, Resize

    torch.set_num_threads(1)
    loader = LoadImage(reader="PydicomReader", image_only=True)
    return loader, Resize((side, side), mode="bilinear", anti_aliasing=False)


def with_monai(path: str, side: int) -> Values:
    """The same by MONAI's reader and resizing, which keep floating-point numbers."""
    loader, resize = _monai(side)
    loaded = loader(path)
    values = loaded.numpy().squeeze().T
    modality = "CT" if values.min() < -500 else "CR"
    windows = _WINDOWS_HU if modality == "CT" else ((values.min(), values.max()),)
    ramps = [(np.clip(values, low, high) - low) / (high - low) for low, high in windows]
    height, width = values.shape
    longest = max(height, width)
    top, left = (longest - height) // 2, (longest - width) // 2
    square = np.zeros((len(ramps), longest, longest), np.float32)
    square[:, top : top + height, left : left + width] = ramps
    resized = resize(square).numpy()
    return np.broadcast_to((resized - 0.5) / 0.5, (3, side, side))


def only_decoded(path: str, side: int) -> None:
    """What pydicom alone takes."""
    dcmread(path).pixel_array  # noqa: B018


_WAYS: dict[str, Callable[[str, int], Values | None]] = {
    "pydicom": with_pydicom,
    "monai": with_monai,
    "decoding": only_decoded,
}


def _place(path: str) -> float:
    ds = dcmread(path, stop_before_pixels=True, specific_tags=["ImagePositionPatient"])
    return float(ds.ImagePositionPatient[2])


def _slices(pool: Any, files: list[str], most: int) -> list[str]:
    """The files in the order of their places, evenly; headers alone are read."""
    places = pool.map(_place, files, chunksize=16)
    ordered = [file for _, file in sorted(zip(places, files, strict=True), reverse=True)]
    return [ordered[round(n / most * (len(ordered) - 1))] for n in range(1, most + 1)]


def _one(job: tuple[str, str, int, str, int, int]) -> None:
    way, path, side, name, place, count = job
    memory = SharedMemory(name)
    try:
        out: Values = np.ndarray((count, 3, side, side), np.float32, memory.buf)
        made = _WAYS[way](path, side)
        if made is not None:
            out[place] = made
        del out
    finally:
        memory.close()


def run(way: str, job: dict[str, Any], pool: Any) -> tuple[float, Values]:
    """Seconds, and float32 (N, 3, S, S)."""
    files, side = job["files"], job["side"]
    count = job.get("most") or len(files)
    memory = SharedMemory(create=True, size=count * 3 * side * side * 4)
    try:
        start = time.perf_counter()
        if job.get("most"):
            files = _slices(pool, files, count)
        jobs = [(way, file, side, memory.name, n, count) for n, file in enumerate(files)]
        pool.map(_one, jobs, chunksize=1)
        seconds = time.perf_counter() - start
        return seconds, np.ndarray((count, 3, side, side), np.float32, memory.buf).copy()
    finally:
        memory.close()
        memory.unlink()


def main() -> None:
    """Measure one way on some jobs, and print seconds by job, best of several runs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("way", choices=_WAYS)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    jobs = json.loads(arguments.jobs.read_text())
    found = {}
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for name, job in jobs.items():
            times = []
            for _ in range(arguments.runs + 1):  # the first imports what is needed
                seconds, pixels = run(arguments.way, job, pool)
                times.append(seconds)
            found[name] = min(times[1:])
            np.save(arguments.jobs.with_name(f"{arguments.way}-{name}.npy"), pixels[-1])
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
