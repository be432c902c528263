"""Distillation: a student learns what its teacher finds likely in every place of a text.

    osler train distill --data DIR --out DIR

The teacher is asked once and its likeliest tokens are stored in `store`, or it is asked at every
step. A teacher behind an OpenAI API ("https://...") answers the data's questions itself. The vision
tower rests; decoder and projector learn.

Source: MedGemma (arXiv 2507.05201), section 2.3; Gemma 3 (arXiv 2503.19786), section 2.2.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from osler.errors import InputError
from osler.inference.remote_address import remote_address
from osler.models.checkpoint import load_medgemma
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.locate import locate
from osler.tasks.remote import connect
from osler.training.decoder import initialise, unused_images
from osler.training.distributed import current_ranks
from osler.training.loop import LoopConfig, Size, to_device, train
from osler.training.losses import distillation_loss, token_cross_entropy
from osler.training.recipes.job import Job, in_own_memory, save_result
from osler.training.streams.shards import find_shards
from osler.training.taught_batches import (
    PackSequences,
    StoredBatches,
    StreamedBatches,
    TaughtBatch,
)
from osler.training.teacher_store import StoreRecord, TaughtSequence, TeacherStore, write_store
from osler.training.teachers import MOST_REMOTE, Told, reading_batch, taught, taught_by_server

BATCH_SIZE = 16
_VALIDATION = 256
_READ_TOGETHER = 16


LOOP = LoopConfig(
    steps=500, learning_rate=5e-4, warmup_steps=20, weight_decay=0.05, bf16=True, compile=True
)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Settings of the recipe.

    Attributes:
        teacher: a name or folder, or a server's address; of the student's tokenizer.
        afresh: the student's decoder and projector begin with random weights.
        stored: sequences that the teacher is asked about before training; None asks it at every
            step, which a server is not.
        kept: tokens in each place; of a server 20 at most.
        drawn: they are drawn by their probability, else the likeliest.
        taught_share: of the loss; the rest is the plain next-token loss.
        image_share: of the sequences.
        length: tokens of a sequence; longer ones are cut.

    Raises:
        InputError: a share outside 0 to 1.
    """

    teacher: str = "nano"
    afresh: bool = False
    stored: int | None = 2000
    kept: int = 256
    drawn: bool = True
    taught_share: float = 1.0
    image_share: float = 0.5
    length: int = 128

    def __post_init__(self) -> None:
        for name in ("taught_share", "image_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1")

    @property
    def is_remote(self) -> bool:
        """Whether the teacher is a server."""
        return self.teacher.startswith(("http://", "https://"))


class DistillTask:
    """A student with its teacher's opinions; `held_back` measures its plain loss."""

    unit = "tokens"

    def __init__(
        self,
        model: MedGemma,
        batches: StoredBatches | StreamedBatches,
        held_back: Sequence[Told],
        taught_share: float,
    ) -> None:
        if model.config.vision_config is not None:
            model.vision_tower.requires_grad_(False)
        self.model, self.batches = model, batches
        self._held_back, self._taught_share = held_back, taught_share

    def size(self, batch: TaughtBatch) -> Size:
        """Tokens that are learnt, and all."""
        return Size(weight=len(batch.top_ids_TK), units=batch.reading.ids_BL.numel())

    def loss(self, batch: TaughtBatch) -> tuple[Tensor, dict[str, float]]:
        """The divergence from the teacher, with the plain loss as far as that is asked for."""
        zero = unused_images(self.model) if batch.reading.pixels_NCSS is None else 0.0
        x_TD = batch.reading.hidden(self.model)
        head_VD = self.model.language_model.embed_tokens.weight
        count = max(1, len(x_TD))
        total = torch.zeros((), device=x_TD.device) + zero
        figures: dict[str, float] = {}
        if self._taught_share > 0:
            away = distillation_loss(x_TD, head_VD, batch.top_ids_TK, batch.top_logits_TK) / count
            total = total + self._taught_share * away
            figures["divergence"] = away.item()
        if self._taught_share < 1:
            plain = token_cross_entropy(x_TD, head_VD, batch.reading.learnt_T) / count
            total = total + (1 - self._taught_share) * plain
            figures["plain_loss"] = plain.item()
        return total, figures

    def evaluate(self) -> dict[str, float]:
        """Mean next-token loss on validation text and talk about images."""
        device = next(self.model.parameters()).device
        figures = {}
        for name, with_image in (("val_loss_text", False), ("val_loss_images", True)):
            rows = [one.row() for one in self._held_back if bool(one.image) == with_image]
            total = weight = 0.0
            for first in range(0, len(rows), _READ_TOGETHER):
                batch = reading_batch(rows[first : first + _READ_TOGETHER], self.model)
                batch = to_device(batch, device)
                head_VD = self.model.language_model.embed_tokens.weight
                x_TD = batch.hidden(self.model)
                total += float(token_cross_entropy(x_TD, head_VD, batch.learnt_T))
                weight += len(x_TD)
            if weight:
                figures[name] = total / weight
        return figures


def distill(job: Job, config: DistillConfig | None = None) -> Path:
    """Train; the model is left in `model`, and a store that is there is used again.

    Raises:
        InputError: data or a store that cannot be used, or settings that make no sense.
    """
    config, loop = config or DistillConfig(), job.loop(LOOP)
    batch_size = job.batch_size or BATCH_SIZE
    folder = locate(job.model or "nano", "medgemma")
    processor = Processor.from_folder(folder)
    student = in_own_memory(load_medgemma(folder, dtype=torch.float32))
    if config.afresh:
        student = _afresh(student, loop.seed)
    sequences, validation = (
        PackSequences(
            job.data,
            split,
            processor,
            image_share=config.image_share,
            length=config.length,
            seed=loop.seed,
        )
        for split in ("train", "val")
    )
    length = config.length if loop.compile else None
    batches: StoredBatches | StreamedBatches
    if config.stored is None:
        if config.is_remote:
            raise InputError("a server is asked before training: say how many to store")
        batches = StreamedBatches(
            sequences,
            _local_teacher(config.teacher, processor.tokenizer),
            student,
            batch_size=batch_size,
            length=length,
            kept=config.kept,
            drawn=config.drawn,
        )
    else:
        store = _store(job.out / "store", sequences, processor, config, loop.seed)
        batches = StoredBatches(
            store, student, batch_size=batch_size, length=length, seed=loop.seed
        )
    held_back = [validation[number] for number in range(_VALIDATION)]
    task = DistillTask(student, batches, held_back, config.taught_share)
    sources = {**find_shards(job.data / "text"), **find_shards(job.data / "images")}
    about = {**job.about("distill", sources), "settings": asdict(config)}
    train(task, loop, job.out, resume=job.resume, about=about)
    save_result(student, job.out / "model", like=folder)
    return job.out / "model"


def _store(
    folder: Path, sequences: PackSequences, processor: Processor, config: DistillConfig, seed: int
) -> TeacherStore:
    """The store in this folder; written now by the first rank, where it is not there."""
    ranks, tokenizer = current_ranks(), _sha256(processor.tokenizer)
    if ranks.rank == 0 and not folder.exists():
        count = config.stored or 0
        made: Iterator[TaughtSequence]
        if config.is_remote:
            kept, drawn = min(config.kept, MOST_REMOTE), False
            server = connect(remote_address(config.teacher))
            asked = sequences.questions(count)
            made = taught_by_server(server, asked, processor, kept=kept, seed=seed)
        else:
            kept, drawn = config.kept, config.drawn
            teacher = _local_teacher(config.teacher, processor.tokenizer)
            told = (sequences[number] for number in range(count))
            made = taught(teacher, told, kept=kept, seed=seed if drawn else None)
        about = StoreRecord(
            teacher=config.teacher, tokenizer_sha256=tokenizer, kept=kept, drawn=drawn
        )
        write_store(folder, tqdm(made, desc="asking the teacher", total=count), about)
    ranks.wait()
    store = TeacherStore(folder)
    if store.record.tokenizer_sha256 != tokenizer:
        raise InputError(f"{folder}: a store for another tokenizer than the student's")
    return store


def _local_teacher(name: str, tokenizer: Tokenizer) -> MedGemma:
    folder = locate(name, "medgemma")
    if _sha256(Tokenizer.from_folder(folder)) != _sha256(tokenizer):
        raise InputError(f"{name}: the teacher's tokenizer is not the student's")
    return load_medgemma(folder, dtype=torch.float32).requires_grad_(False)


def _afresh(model: MedGemma, seed: int) -> MedGemma:
    """The same sizes and vision tower with a decoder that knows nothing."""
    torch.manual_seed(seed)
    new = MedGemma(model.config)
    initialise(new)
    if model.config.vision_config is not None:
        new.vision_tower.load_state_dict(model.vision_tower.state_dict())
    return new


def _sha256(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
