"""What a teacher thinks of tokens: one on this machine, or one behind an OpenAI API.

The former scores any sequence, and 256 tokens in every place are kept. The latter answers
questions itself and tells the 20 most probable tokens in the place of each of its own: more, the
protocol does not have. Its tokenizer must be the student's.

Shapes: B sequences, L positions, T positions to be learnt, D hidden_size, K tokens kept,
V vocabulary, N images.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from osler.errors import PromptError
from osler.inference.remote_scores import ScoredAnswer, ScoredToken
from osler.models.medgemma import MedGemma
from osler.preprocess.chat import Message
from osler.preprocess.processor import Processor
from osler.preprocess.sources import ImageFile
from osler.preprocess.tokenizer import END_OF_TURN, Tokenizer
from osler.tasks.remote import RemoteAssistant
from osler.training.conversation import TrainingSequence
from osler.training.images import square, to_model_range
from osler.training.losses import sample_logits
from osler.training.teacher_store import TaughtSequence

MOST_REMOTE = 20
# Positions whose scores over the whole vocabulary are in memory at once.
_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Told:
    """A sequence without a teacher's opinion; `image` is the file that its image tokens are of."""

    sequence: TrainingSequence
    image: bytes = b""

    def row(self) -> tuple[Tensor, Tensor, bytes]:
        """As `reading_batch` takes it."""
        learn = torch.tensor(self.sequence.learn)
        learn[0] = False  # nothing stands before it that could foretell it
        return torch.tensor(self.sequence.ids), learn, self.image


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadingBatch:
    """Sequences to be read, padded on the right, where nothing looks, with their images."""

    ids_BL: Tensor
    learn_BL: Tensor
    pixels_NCSS: Tensor | None

    def hidden(self, model: MedGemma) -> Tensor:
        """What a model makes of the positions before those to be learnt, (T, D)."""
        x_BLD = model.hidden(self.ids_BL[:, :-1], pixels_NCSS=self.pixels_NCSS)
        return x_BLD[self.learn_BL[:, 1:]]

    @property
    def learnt_T(self) -> Tensor:
        """The tokens to be learnt, in the order of `hidden`."""
        return self.ids_BL[:, 1:][self.learn_BL[:, 1:]]


def reading_batch(
    rows: Sequence[tuple[Tensor, Tensor, bytes]], model: MedGemma, length: int | None = None
) -> ReadingBatch:
    """Lay sequences out for a model.

    Args:
        rows: ids, which of them are to be learnt, and the image's file, if any.
        model: whose images these become.
        length: of every row, for models that were compiled; None for the longest row's.
    """
    config = model.config
    most = max(len(ids) for ids, _, _ in rows) if length is None else length
    ids_BL = torch.full((len(rows), most), config.pad_token_id)
    learn_BL = torch.zeros((len(rows), most), dtype=torch.bool)
    for row, (ids, learn, _) in enumerate(rows):
        ids_BL[row, : len(ids)] = ids
        learn_BL[row, : len(ids)] = learn
    files = [image for _, _, image in rows if image]
    pixels = None
    if files and config.vision_config is not None:
        side_px = config.vision_config.image_size
        squares = [torch.from_numpy(square(file, side_px).copy()) for file in files]
        pixels = to_model_range(torch.stack(squares))
    return ReadingBatch(ids_BL=ids_BL, learn_BL=learn_BL, pixels_NCSS=pixels)


@torch.no_grad()
def opinions(
    teacher: MedGemma, batch: ReadingBatch, kept: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """What a teacher on this machine finds likely in every place to be learnt.

    Args:
        teacher: in evaluation mode.
        batch: to read.
        kept: tokens in each place.
        generator: as `losses.sample_logits` takes it.

    Returns:
        Token ids and scores, (T, K) each.
    """
    parts = [
        sample_logits(teacher.language_model.logits(x_CD), kept, generator)
        for x_CD in batch.hidden(teacher).split(_CHUNK)
    ]
    return torch.cat([ids for ids, _ in parts]), torch.cat([logits for _, logits in parts])


def taught(
    teacher: MedGemma,
    told: Iterable[Told],
    *,
    kept: int = 256,
    seed: int | None = 0,
    batch_size: int = 16,
) -> Iterator[TaughtSequence]:
    """Ask a teacher on this machine about sequences.

    Args:
        teacher: in evaluation mode.
        told: sequences; those with nothing to learn are passed over.
        kept: tokens in each place.
        seed: they are drawn by their probability; None keeps the most probable.
        batch_size: sequences read together.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    rest = (one for one in told if any(one.sequence.learn[1:]))
    while some := list(islice(rest, batch_size)):
        rows = [one.row() for one in some]
        batch = reading_batch(rows, teacher)
        ids_TK, logits_TK = opinions(teacher, batch, kept, generator)
        counts = [int(learn.sum()) for _, learn, _ in rows]
        for (ids, learn, image), top_ids, top_logits in zip(
            rows, ids_TK.split(counts), logits_TK.split(counts), strict=True
        ):
            yield TaughtSequence(
                ids_L=ids,
                learn_L=learn,
                top_ids_TK=top_ids,
                top_logits_TK=top_logits.bfloat16(),
                image=image,
            )


def taught_by_server(
    teacher: RemoteAssistant,
    questions: Iterable[tuple[str, bytes]],
    processor: Processor,
    *,
    kept: int = MOST_REMOTE,
    max_new_tokens: int = 200,
    seed: int = 0,
) -> Iterator[TaughtSequence]:
    """Let a server answer questions, and take its answers as sequences to learn.

    Args:
        teacher: the server.
        questions: each with the file of its image, if any.
        processor: the student's.
        kept: tokens in each place; a server may tell fewer.
        max_new_tokens: where an answer is cut off.
        seed: answers are drawn, each from its own number.

    Raises:
        PromptError: more tokens than the protocol has, or a token that is none of the student's.
    """
    if kept > MOST_REMOTE:
        raise PromptError(f"a server tells {MOST_REMOTE} tokens in each place, not {kept}")
    table = TokenTable(processor.tokenizer)
    for number, (question, image) in enumerate(questions):
        parts: list[dict[str, object]] = [{"type": "text", "text": question}]
        if image:
            parts.insert(0, {"type": "image", "image": ImageFile(image)})
        messages: list[Message] = [{"role": "user", "content": parts}]
        answer = teacher.scored(
            messages,
            logprobs=kept,
            max_new_tokens=max_new_tokens,
            temperature=1.0,
            seed=seed + number,
        )
        if answer.tokens:
            yield table.taught(processor(messages).ids, answer, kept, image)


class TokenTable:
    """Finds a token by its bytes, which is how servers name it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._end = tokenizer.id_of(END_OF_TURN)
        # Where several tokens are spelt alike, a piece is meant rather than a byte, and the first.
        self._ids = {
            bytes([byte]): token
            for byte in range(256)
            if (token := tokenizer.id_if_there(f"<0x{byte:02X}>")) is not None
        }
        single = set(self._ids.values())
        for token in reversed(range(tokenizer.vocab_size)):
            if token not in single:
                self._ids[tokenizer.decode([token], skip_special=False).encode()] = token

    def taught(
        self, prompt_ids: Sequence[int], answer: ScoredAnswer, kept: int, image: bytes = b""
    ) -> TaughtSequence:
        """A server's answer as a sequence to learn.

        Args:
            prompt_ids: what it answered.
            answer: it; where it is complete, the turn's end is learnt with it.
            kept: places for tokens at each position.
            image: the file of its image.

        Raises:
            PromptError: a token that this tokenizer does not have.
        """
        said, tops = [], []
        for scored in answer.tokens:
            if scored.token not in self._ids:
                raise PromptError("the teacher's tokens are not those of the student's tokenizer")
            said.append(self._ids[scored.token])
            tops.append(self._top(scored))
        if answer.is_complete and said[-1] != self._end:
            said.append(self._end)
            tops.append([(self._end, 0.0)])
        filled = [(top + [(0, -torch.inf)] * kept)[:kept] for top in tops]
        return TaughtSequence(
            ids_L=torch.tensor([*prompt_ids, *said]),
            learn_L=torch.tensor([False] * len(prompt_ids) + [True] * len(said)),
            top_ids_TK=torch.tensor([[token for token, _ in row] for row in filled]),
            top_logits_TK=torch.tensor([[score for _, score in row] for row in filled]),
            image=image,
        )

    def _top(self, scored: ScoredToken) -> list[tuple[int, float]]:
        """What could have been there; the token itself where nothing of it is known here."""
        known = [(self._ids[token], score) for token, score in scored.top if token in self._ids]
        return known or [(self._ids[scored.token], 0.0)]
