"""Sequences of the data pack with a teacher's opinions, in batches.

Shapes: T positions to be learnt, K tokens kept.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osler.ingest.image_pack import Split, read_image_pack
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor
from osler.training.captions import instruction_pairs
from osler.training.conversation import conversation, document
from osler.training.corpus import SPLIT_TEXTS, Sample, row_samples
from osler.training.distributed import current_ranks
from osler.training.loop import to_device
from osler.training.streams.shards import all_rows, find_shards
from osler.training.teacher_store import TeacherStore
from osler.training.teachers import ReadingBatch, Told, opinions, reading_batch


class PackSequences:
    """Text and talk about images of the data pack as numbered sequences without end.

    What number i is follows from the seed alone.

    Args:
        data: a folder with texts in `text` and the data pack's image sets in `images`.
        split: of their rows.
        processor: the student's.
        image_share: how many of them are about an image, 0 to 1.
        length: the most tokens of a sequence; longer ones are cut.
        seed: of what comes when, and of its wording.
    """

    def __init__(
        self,
        data: Path,
        split: Split,
        processor: Processor,
        *,
        image_share: float = 0.5,
        length: int = 128,
        seed: int = 0,
    ) -> None:
        self._seed = seed
        self._texts = _texts(data / "text", split, seed)
        self._images = list(read_image_pack(data, split)) if image_share else []
        self._image_share, self._length = image_share, length
        self._tokenizer, self._model = processor.tokenizer, processor.config

    def sample(self, number: int) -> tuple[str | None, str, bytes]:
        """Question (None of a plain text), answer, and the file of an image, if any."""
        rng = random.Random(f"{self._seed}/{number}")
        if rng.random() < self._image_share:
            item = rng.choice(self._images)
            question, answer = rng.choice(instruction_pairs(item, rng))
            return question, answer, item.image_bytes
        return *rng.choice(self._texts), b""

    def __getitem__(self, number: int) -> Told:
        question, answer, image = self.sample(number)
        encode, model = self._tokenizer.encode, self._model
        if question is None:
            made = document(encode, answer, bos=model.bos_token_id, eos=model.eos_token_ids[0])
        else:
            soft = self._tokenizer.image_soft * model.mm_tokens_per_image
            made = conversation(
                encode,
                [(question, answer)],
                bos=model.bos_token_id,
                image=0 if image else None,
                image_text=f"\n\n{self._tokenizer.start_of_image}{soft}"
                f"{self._tokenizer.end_of_image}\n\n",
                learn_prompts=not image,
            )
        cut = slice(self._length)
        return Told(sequence=replace(made, ids=made.ids[cut], learn=made.learn[cut]), image=image)

    def questions(self, count: int) -> Iterator[tuple[str, bytes]]:
        """The first so many questions, with the files of their images."""
        found = number = 0
        while found < count:
            question, _, image = self.sample(number)
            number += 1
            if question is not None:
                found += 1
                yield question, image


def _texts(folder: Path, split: Split, seed: int) -> list[Sample]:
    """All questions and texts of a split: its own files, and rows that say they are of it."""
    texts = find_shards(folder)
    if split == "val":
        mixed = {name: shards for name, shards in texts.items() if name in SPLIT_TEXTS}
        texts = {**mixed, **find_shards(folder, "val")}
    rng = random.Random(seed)
    return [
        sample
        for source, shards in sorted(texts.items())
        for row in all_rows(shards)
        for sample in row_samples(source, row, split, rng)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class TaughtBatch:
    """Sequences with a teacher's opinion of every place to be learnt, (T, K) each."""

    reading: ReadingBatch
    top_ids_TK: Tensor
    top_logits_TK: Tensor


class _Numbered:
    """Counts batches, and says what numbers the sequences of this rank's share have."""

    def __init__(self, model: MedGemma, batch_size: int, length: int | None) -> None:
        self._model, self._batch_size, self._length = model, batch_size, length
        self._step = 0

    def _read(self, rows: Sequence[tuple[Tensor, Tensor, bytes]]) -> ReadingBatch:
        return reading_batch(rows, self._model, self._length)

    def _next_numbers(self) -> range:
        first = self._step * self._batch_size
        self._step += 1
        return range(first, first + self._batch_size)[current_ranks().share(self._batch_size)]

    def state_dict(self) -> dict[str, Any]:
        """How many batches there were."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._step = state["step"]


class StoredBatches(_Numbered):
    """Batches of a store, in a new order each epoch.

    Args:
        store: sequences with their teacher's opinions.
        model: whose batches these are.
        batch_size: sequences over all ranks.
        length: of every row, for a model that was compiled; None for the longest's.
        seed: of the orders.
    """

    def __init__(
        self,
        store: TeacherStore,
        model: MedGemma,
        *,
        batch_size: int,
        length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, batch_size, length)
        self._store, self._seed = store, seed
        self._order: tuple[int, list[int]] = (-1, [])

    def __next__(self) -> TaughtBatch:
        chosen = [self._store[self._place(number)] for number in self._next_numbers()]
        return TaughtBatch(
            reading=self._read([(one.ids_L, one.learn_L, one.image) for one in chosen]),
            top_ids_TK=torch.cat([one.top_ids_TK for one in chosen]),
            top_logits_TK=torch.cat([one.top_logits_TK for one in chosen]),
        )

    def _place(self, number: int) -> int:
        """Where in the store the sequence is that comes at this turn."""
        epoch, turn = divmod(number, len(self._store))
        if self._order[0] != epoch:
            places = range(len(self._store))
            shuffled = random.Random(f"{self._seed}/{epoch}").sample(places, len(places))
            self._order = (epoch, shuffled)
        return self._order[1][turn]


class StreamedBatches(_Numbered):
    """Batches that a teacher on this machine is asked about when they are due.

    Args:
        sequences: to learn.
        teacher: who is asked.
        model: whose batches these are.
        batch_size: sequences over all ranks.
        length: as `StoredBatches` takes it.
        kept: tokens in each place.
        drawn: they are drawn by their probability, else the likeliest.
    """

    def __init__(
        self,
        sequences: PackSequences,
        teacher: MedGemma,
        model: MedGemma,
        *,
        batch_size: int,
        length: int | None = None,
        kept: int = 256,
        drawn: bool = True,
    ) -> None:
        super().__init__(model, batch_size, length)
        self._sequences, self._teacher = sequences, teacher
        self._kept, self._drawn = kept, drawn

    def __next__(self) -> TaughtBatch:
        numbers, device = self._next_numbers(), current_ranks().device
        rows = [self._sequences[number].row() for number in numbers]
        batch = to_device(self._read(rows), device)
        generator = torch.Generator(device).manual_seed(numbers.start) if self._drawn else None
        ids_TK, logits_TK = opinions(self._teacher.to(device), batch, self._kept, generator)
        return TaughtBatch(reading=batch, top_ids_TK=ids_TK, top_logits_TK=logits_TK)
