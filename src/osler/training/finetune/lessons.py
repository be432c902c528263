"""Examples as a model meets them: token ids, which of them are learnt, and pixels.

Shapes: N images and crops, S image side, B batch, L positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osler.errors import InputError
from osler.preprocess.processor import Processor
from osler.preprocess.tokenizer import END_OF_TURN, START_OF_TURN
from osler.training.conversation import TrainingSequence
from osler.training.finetune.examples import BadRows, Example, Examples

# Of pixels that stay in memory; the images beyond are read again each time they are due.
_KEPT_BYTES = 2**30
# So that the answer before it is written as it is in a conversation that goes on.
_NEXT_TURN = {"role": "user", "content": "."}


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One example; `sequence.learn` is True at the assistant's answers with their ends."""

    sequence: TrainingSequence
    pixels_NCSS: Tensor


@dataclass(frozen=True, kw_only=True)
class LessonBatch:
    """Sequences padded on the right; causal attention never looks at the padding."""

    ids_BL: Tensor
    learn_BL: Tensor
    pixels_NCSS: Tensor | None


class Lessons:
    """Makes lessons of examples.

    Args:
        examples: of one file.
        processor: the model's.
        most_tokens: a lesson may have.
    """

    def __init__(self, examples: Examples, processor: Processor, *, most_tokens: int) -> None:
        self.examples = examples
        self._processor = processor
        self._most_tokens = most_tokens
        self._kept: dict[int, Lesson] = {}
        self._kept_bytes = 0
        self._header = processor.tokenizer.encode(f"{START_OF_TURN}model\n")
        self._end = processor.tokenizer.id_of(END_OF_TURN)

    def __len__(self) -> int:
        return len(self.examples.rows)

    @property
    def have_images(self) -> bool:
        """Whether any example has one."""
        return any(row.images for row in self.examples.rows)

    def check(self) -> Iterator[int]:
        """Read every image and count every row's tokens, before a training that may take hours.

        Yields:
            After each row, its index.

        Raises:
            UnreadableFileError: at the end, where there are rows whose images are no images, or
                that are too long; the message has their lines.
        """
        bad = BadRows(self.examples.path)
        for index, row in enumerate(self.examples.rows):
            try:
                length = len(self[index].sequence.ids)
                if length > self._most_tokens:
                    bad.add(row.line, f"{length} tokens, more than the {self._most_tokens} allowed")
            except InputError as error:
                bad.add(row.line, error)
            yield index
        bad.refuse_if_any()

    def __getitem__(self, index: int) -> Lesson:
        if index in self._kept:
            return self._kept[index]
        lesson = self._make(self.examples.rows[index])
        if self._kept_bytes + lesson.pixels_NCSS.nbytes <= _KEPT_BYTES:
            self._kept[index] = lesson
            self._kept_bytes += lesson.pixels_NCSS.nbytes
        return lesson

    def with_answer(self, index: int, answer: str) -> TrainingSequence:
        """A lesson's sequence with another text in the place of its only answer."""
        sequence = self[index].sequence
        prompt = sequence.ids[: sequence.learn.index(True)]
        said = self._processor.tokenizer.encode(f"{answer.strip()}{END_OF_TURN}")
        return TrainingSequence(ids=prompt + said, learn=[False] * len(prompt) + [True] * len(said))

    def _make(self, row: Example) -> Lesson:
        prompt = self._processor([*row.messages, _NEXT_TURN])
        learn = self._answers(prompt.ids)
        length = len(learn) - learn[::-1].index(True)  # up to the last answer's end
        return Lesson(
            sequence=TrainingSequence(ids=prompt.ids[:length], learn=learn[:length]),
            pixels_NCSS=torch.from_numpy(prompt.pixels),
        )

    def _answers(self, ids: list[int]) -> list[bool]:
        """Where the model speaks; that a turn begins is never part of what a message says."""
        learn = [False] * len(ids)
        size = len(self._header)
        for start in range(len(ids) - size):  # the turn that the prompt ends with is not said yet
            if ids[start : start + size] == self._header:
                end = ids.index(self._end, start)
                learn[start + size : end + 1] = [True] * (end + 1 - start - size)
        return learn


def collate(
    sequences: Sequence[TrainingSequence], pixels: Sequence[Tensor], *, pad: int
) -> LessonBatch:
    """Pad sequences to the longest, and put their images in one row.

    Args:
        sequences: at least one.
        pixels: (N, C, S, S) of each sequence, N may be 0.
        pad: id that fills up.
    """
    length = max(len(sequence.ids) for sequence in sequences)
    ids_BL = torch.full((len(sequences), length), pad)
    learn_BL = torch.zeros((len(sequences), length), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids_BL[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        learn_BL[row, : len(sequence.ids)] = torch.tensor(sequence.learn)
    some = [images for images in pixels if len(images)]
    return LessonBatch(
        ids_BL=ids_BL, learn_BL=learn_BL, pixels_NCSS=torch.cat(some) if some else None
    )
