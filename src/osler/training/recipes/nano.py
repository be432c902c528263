"""The two nano models from random weights, phase by phase.

    osler train nano --data DIR --out DIR

    teacher   a network of everyday images learns the labels (needs the extra `nano`)
    encoder   images of 128 px and captions: sigmoid loss, labels and the teacher beside it
    refine    the same at 224 px
    heads     pooling head and text tower, over a vision tower that rests
    text      the decoder reads
    images    the decoder learns to speak of images

With `--model ENCODERS` the first four are left out, and the decoder is trained over that MedSigLIP.
Each phase leaves its model in `<out>/<phase>/model` and is not run again once that is there; so
a run that was interrupted goes on, and a phase whose folder was removed is trained anew.
The models as they are released are in `<out>/medsiglip-nano` and `<out>/medgemma-nano`.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from osler.errors import InputError
from osler.models.checkpoint import load_medgemma, load_medsiglip
from osler.models.config import medsiglip_nano
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.tasks.checkpoint_extras import DEMONSTRATION
from osler.tasks.locate import locate
from osler.training.recipes.job import Job, save_result
from osler.training.recipes.nano_decoder import images, text
from osler.training.recipes.nano_encoders import encoder, heads, refine
from osler.training.recipes.nano_teacher import teacher

_PHASES: dict[str, Callable[[Job, Path], None]] = {
    "teacher": teacher,
    "encoder": encoder,
    "refine": refine,
    "heads": heads,
    "text": text,
    "images": images,
}
_OF_DECODER = ("text", "images")


def nano(job: Job) -> Path:
    """Train both, every phase that is not done; they are left in the run's folder.

    Raises:
        OslerError: `job.model` is no MedSigLIP, or not of the nano's sizes.
    """
    if job.model is not None:
        take_encoders(job, job.model)
    for name, phase in _PHASES.items():
        if job.model is not None and name not in _OF_DECODER:
            continue
        if not (job.out / name / "model").exists():
            phase(job, job.out / name)
    return _release(job)


def take_encoders(job: Job, name: str) -> None:
    """Put encoders that are trained already where the phase `heads` would leave them."""
    folder = locate(name, "medsiglip")
    model = load_medsiglip(folder)
    if model.config != medsiglip_nano():
        raise InputError(f"{name}: its sizes are not those of the nano")
    if not (job.out / "heads" / "model").exists():
        save_result(model, job.out / "heads" / "model", like=folder)


def _release(job: Job) -> Path:
    release: dict[str, MedSiglip | MedGemma] = {
        "medsiglip-nano": load_medsiglip(job.out / "heads" / "model"),
        "medgemma-nano": load_medgemma(job.out / "images" / "model"),
    }
    for name, model in release.items():
        save_result(
            model,
            job.out / name,
            like=locate("nano", "medsiglip" if name == "medsiglip-nano" else "medgemma"),
            says=DEMONSTRATION,
            dtype=torch.bfloat16,
        )
    return job.out
