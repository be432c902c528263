"""Fine-tunes a MedGemma on a user's data: what `osler finetune` does, on one rank or several."""

import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from torch.distributed.checkpoint.api import CheckpointException

from osler.errors import CheckpointError, PromptError
from osler.models.checkpoint import load_medgemma, open_medgemma
from osler.models.lora import add_lora, target_names
from osler.models.medgemma import MedGemma
from osler.models.nf4 import hold_in_4_bits
from osler.preprocess.processor import Processor
from osler.tasks.adapter import save_adapter
from osler.tasks.locate import locate
from osler.tasks.packed_folder import check_disk
from osler.training.distributed import current_ranks
from osler.training.finetune.data import read_examples
from osler.training.finetune.lessons import Lessons
from osler.training.finetune.output import (
    RUN,
    Progress,
    base_name,
    check_out,
    refuse_packed,
    silent,
    write_record,
)
from osler.training.finetune.settings import FinetuneConfig, Finetuned
from osler.training.finetune.task import FinetuneTask, LessonBatches
from osler.training.loop import LoopConfig, train
from osler.training.optim import precision, seed_everything
from osler.training.recipes.job import save_result


def finetune(
    name: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: FinetuneConfig,
    *,
    validation: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Finetuned:
    """Fine-tune a MedGemma.

    Args:
        name: the model, as `osler.load` takes it.
        data: a table, conversations or a folder, as `data.read_examples` takes them.
        out: a new or empty folder. It gets an adapter in PEFT's form, or for the method "full" a
            checkpoint; and in `run/` the record of the training.
        config: how.
        validation: data of the same form that are only measured on, before and after.
        resume: go on with an interrupted run in `out`, of the same model, data and settings.
        progress: called with "reading", the examples read, and their number.

    Raises:
        ModelNotFoundError: no model by that name.
        CheckpointError: a folder that does not hold a model that trains, an output folder that is
            not empty, or a full disk.
        InputError: data that are not good, or settings that make no sense.
        NonFiniteError: the loss is not a number any more.
    """
    folder, target = locate(name, "medgemma"), Path(out)
    ranks = current_ranks()
    refuse_packed(folder)
    check_out(target, resume=resume)
    ranks.wait()  # or a slow rank would find what a quick one has begun
    lessons, held_out = _read(folder, data, validation, config, progress)
    seed_everything(config.seed)
    model, dtype = _prepared(folder, config, have_images=lessons.have_images)
    learns = [p for p in model.parameters() if p.requires_grad]
    # Two states at a time, each of weights and two moments, and the result.
    check_disk(target, 7 * sum(p.nbytes for p in learns))
    pad = model.config.pad_token_id
    batches = LessonBatches(lessons, config.batch_size, pad=pad, seed=config.seed, ranks=ranks)
    task = FinetuneTask(model.to(ranks.device), batches, held_out, config.batch_size)
    loop = _loop_config(config, len(lessons), model, dtype)
    before = _evaluated(task, ranks.device, loop.bf16)
    about = {
        "recipe": "finetune",
        "base": base_name(name),
        "settings": asdict(config),
        "data_sha256": lessons.examples.digest(),
    }
    try:
        run = train(task, loop, target / RUN, resume=resume, about=about)
    except CheckpointException as error:  # whose message is the trace of every rank
        raise CheckpointError(
            f"{target / RUN}: the training's state cannot be written or read; is the disk full?"
        ) from error
    if config.method == "full":
        save_result(model, target, like=folder, dtype=dtype)
    elif ranks.rank == 0:
        save_adapter(model, config.lora, target, base=base_name(name))
    done = Finetuned(
        folder=str(target),
        method=config.method,
        base=base_name(name),
        data_sha256=lessons.examples.digest(),
        examples=len(lessons),
        labels=lessons.examples.labels,
        trained_parameters=sum(p.numel() for p in learns),
        steps=run.steps,
        learning_rate=loop.learning_rate,
        before=before,
        after=run.evaluation,
        validation_examples=len(held_out) if held_out else 0,
    )
    if ranks.rank == 0:
        write_record(done, target)
        # What an interrupted run would have needed.
        shutil.rmtree(target / RUN / "checkpoints")
    ranks.wait()
    return done


def _read(
    folder: Path,
    data: str | os.PathLike[str],
    validation: str | os.PathLike[str] | None,
    config: FinetuneConfig,
    progress: Progress,
) -> tuple[Lessons, Lessons | None]:
    """All examples, each of them looked at."""
    processor = Processor.from_folder(folder)
    examples = read_examples(data, question=config.question)
    lessons = Lessons(examples, processor, most_tokens=config.most_tokens)
    held_out = None
    if validation is not None:
        labels = examples.labels or None
        unseen = read_examples(validation, question=config.question, labels=labels)
        held_out = Lessons(unseen, processor, most_tokens=config.most_tokens)
    both = [lessons] if held_out is None else [lessons, held_out]
    total, done = sum(map(len, both)), 0
    for one in both:
        for _ in one.check():
            done += 1
            progress("reading", done, total)
    return lessons, held_out


def _prepared(
    folder: Path, config: FinetuneConfig, *, have_images: bool
) -> tuple[MedGemma, torch.dtype]:
    """The model, of which what is to learn requires gradients; and the dtype of its checkpoint."""
    _, stored = open_medgemma(folder)
    plain = {tensor.dtype for tensor in stored.values()} == {"F32"}
    # float16 overflows in a Gemma 3, and a folder of several types names none.
    dtype = torch.float32 if plain else torch.bfloat16
    if config.method == "full":
        # Steps smaller than a bfloat16 would be lost.
        model = load_medgemma(folder, dtype=torch.float32)
        if not have_images and model.config.vision_config is not None:
            model.vision_tower.requires_grad_(False)
            model.multi_modal_projector.requires_grad_(False)
        return model, dtype
    model = load_medgemma(folder, dtype=dtype)
    names = target_names(model, config.target_modules)
    if not have_images:
        names = [name for name in names if not name.startswith("vision_tower.")]
    if not names:
        raise PromptError("the target modules read images only, and the data have none")
    if config.method == "qlora":
        hold_in_4_bits(model)
    add_lora(model, config.lora, names)
    return model, dtype


def _loop_config(
    config: FinetuneConfig, examples: int, model: MedGemma, dtype: torch.dtype
) -> LoopConfig:
    steps = math.ceil(config.epochs * examples / (config.batch_size * config.accumulate))
    return LoopConfig(
        steps=steps,
        accumulate=config.accumulate,
        learning_rate=config.rate(model.config.text_config.hidden_size),
        warmup_steps=steps // 10,
        bf16=dtype == torch.bfloat16,
        activation_checkpointing=config.recompute,
        checkpoint_every=config.checkpoint_every,
        keep_last=1,
        parallel=config.parallel if current_ranks().world > 1 else "none",
        seed=config.seed,
    )


def _evaluated(task: FinetuneTask, device: torch.device, bf16: bool) -> dict[str, float]:
    task.model.eval()
    with torch.no_grad(), precision(device, bf16):
        return task.evaluate()
