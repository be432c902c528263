"""Fine-tuning a MedGemma on conversations, as the loop takes it.

Shapes: B batch, L positions, N images, C labels.
"""

import random
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from osler.models.medgemma import MedGemma
from osler.training.decoder import unused_images
from osler.training.distributed import Ranks
from osler.training.finetune.lessons import Lesson, LessonBatch, Lessons, collate
from osler.training.loop import Size, to_device
from osler.training.losses import token_cross_entropy, token_logprobs


class LessonBatches:
    """Lessons without end, each once an epoch, every epoch in an order of its own.

    Args:
        lessons: to learn from.
        batch_size: of all ranks together.
        pad: id that fills up.
        seed: of the orders.
        ranks: over which a batch is shared.

    Raises:
        InputError: a batch that the ranks cannot share evenly.
    """

    def __init__(
        self, lessons: Lessons, batch_size: int, *, pad: int, seed: int, ranks: Ranks
    ) -> None:
        self._lessons = lessons
        self._batch_size = batch_size
        self._share = ranks.share(batch_size)
        self._pad = pad
        self._seed = seed
        self._taken = 0

    def __next__(self) -> LessonBatch:
        places = range(self._taken, self._taken + self._batch_size)
        self._taken += self._batch_size
        lessons = [self._lessons[self._at(place)] for place in places[self._share]]
        return batch_of(lessons, self._pad)

    def state_dict(self) -> dict[str, Any]:
        """How many were taken."""
        return {"taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind those that were taken."""
        self._taken = state["taken"]

    def _at(self, place: int) -> int:
        epoch, within = divmod(place, len(self._lessons))
        order = list(range(len(self._lessons)))
        random.Random(f"{self._seed} {epoch}").shuffle(order)
        return order[within]


class FinetuneTask:
    """What the loop trains; see `loop.Task`.

    Args:
        model: whose parameters that require gradients learn.
        batches: to learn from.
        validation: what is evaluated, if anything.
        batch_size: sequences that are evaluated together.
    """

    unit = "tokens"

    def __init__(
        self, model: MedGemma, batches: LessonBatches, validation: Lessons | None, batch_size: int
    ) -> None:
        self.model = model
        self.batches = batches
        self._validation = validation
        self._batch_size = batch_size

    def size(self, batch: LessonBatch) -> Size:
        """The tokens to be learnt, and all that are read."""
        return Size(weight=float(batch.learn_BL.sum()), units=batch.ids_BL.numel())

    def loss(self, batch: LessonBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy of the answers' tokens."""
        zero = unused_images(self.model) if batch.pixels_NCSS is None else 0.0
        return self._summed(batch) / batch.learn_BL.sum() + zero, {}

    def evaluate(self) -> dict[str, float]:
        """Loss on the validation data, and the share of labels that are told right.

        The label that is told is the one whose text the model finds likeliest as its answer.
        """
        lessons = self._validation
        if lessons is None:
            return {}
        if lessons.examples.labels:
            return self._told_apart(lessons)
        total, tokens = 0.0, 0
        for start in range(0, len(lessons), self._batch_size):
            stop = min(len(lessons), start + self._batch_size)
            batch = self._on_device(batch_of([lessons[i] for i in range(start, stop)], self._pad))
            total += self._summed(batch).item()
            tokens += int(batch.learn_BL.sum())
        return {"validation_loss": total / tokens}

    def _summed(self, batch: LessonBatch) -> Tensor:
        """Cross-entropy of the answers' tokens, added up."""
        x_BLD = self.model.hidden(batch.ids_BL[:, :-1], pixels_NCSS=batch.pixels_NCSS)
        learn_BL = batch.learn_BL[:, 1:]
        weight_VD = self.model.language_model.embed_tokens.weight
        return token_cross_entropy(x_BLD[learn_BL], weight_VD, batch.ids_BL[:, 1:][learn_BL])

    def _told_apart(self, lessons: Lessons) -> dict[str, float]:
        labels = lessons.examples.labels
        total, tokens, right = 0.0, 0, 0
        for index, row in enumerate(lessons.examples.rows):
            scores = [part.sum().item() for part in self._answers_logprobs(lessons, index)]
            true = labels.index(row.label)
            total -= scores[true]
            tokens += sum(lessons[index].sequence.learn)
            right += scores[true] == max(scores)
        return {"validation_loss": total / tokens, "validation_accuracy": right / len(lessons)}

    def _answers_logprobs(self, lessons: Lessons, index: int) -> list[Tensor]:
        """Of every label as the answer to one example's question, its tokens' log-probabilities."""
        labels = lessons.examples.labels
        answers = [lessons.with_answer(index, label) for label in labels]
        batch = self._on_device(collate(answers, [lessons[index].pixels_NCSS], pad=self._pad))
        soft_NTD = None
        if batch.pixels_NCSS is not None:  # once for all labels
            soft_NTD = self.model.embed_images(batch.pixels_NCSS).repeat(len(labels), 1, 1)
        x_BLD = self.model.hidden(batch.ids_BL[:, :-1], soft_NTD=soft_NTD)
        learn_BL = batch.learn_BL[:, 1:]
        weight_VD = self.model.language_model.embed_tokens.weight
        logprobs = token_logprobs(x_BLD[learn_BL], weight_VD, batch.ids_BL[:, 1:][learn_BL])
        return list(logprobs.split(learn_BL.sum(dim=1).tolist()))

    @property
    def _pad(self) -> int:
        return self.model.config.pad_token_id

    def _on_device(self, batch: LessonBatch) -> LessonBatch:
        moved: LessonBatch = to_device(batch, self.model.language_model.embed_tokens.weight.device)
        return moved


def batch_of(lessons: Sequence[Lesson], pad: int) -> LessonBatch:
    """Lessons as one batch."""
    return collate(
        [lesson.sequence for lesson in lessons],
        [lesson.pixels_NCSS for lesson in lessons],
        pad=pad,
    )
