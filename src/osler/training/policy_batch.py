"""Questions with answers that can be checked, answers drawn to them, and batches of these.

Shapes: B answers, L positions, T answer tokens, N images, K images of the answers' prompts,
C channels, S image side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Prompt
from osler.training.losses import token_logprobs


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """A question whose answers can be checked.

    Attributes:
        prompt: what the model is given.
        reward: what an answer is worth, 0 to 1.
        question: in words, for the log.
        truth: likewise, what is right.
        group: patient, case or the like, for intervals.
    """

    prompt: Prompt
    reward: Callable[[str], float]
    question: str
    truth: str
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One answer, as JSON can hold it.

    Attributes:
        exercise: the question's number.
        ids: the answer's tokens.
        text: its words.
        sampled: log-probability of each token under the weights that drew it.
        start: the same under the weights that training began with.
        reward: what it earned.
        advantage: against the other answers to the question.
    """

    exercise: int
    ids: list[int]
    text: str
    sampled: list[float]
    start: list[float]
    reward: float
    advantage: float


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyBatch:
    """Answers behind their prompts, padded on the right, where nothing looks.

    Attributes:
        ids_BL: int64.
        answer_BL: bool, True at the answers' tokens.
        sampled_BL: see `Rollout`; 0 elsewhere.
        start_BL: likewise.
        advantage_B: likewise.
        reward_B: likewise.
        pixels_NCSS: images of the questions, each once; None where there are none.
        image_of_K: int64, which of these each image of the answers' prompts is, in reading order.
    """

    ids_BL: Tensor
    answer_BL: Tensor
    sampled_BL: Tensor
    start_BL: Tensor
    advantage_B: Tensor
    reward_B: Tensor
    pixels_NCSS: Tensor | None
    image_of_K: Tensor


def policy_batch(
    rollouts: Sequence[Rollout], exercises: Sequence[Exercise], pad: int
) -> PolicyBatch:
    """Lay answers out behind their prompts.

    Args:
        rollouts: the answers.
        exercises: all questions.
        pad: id that fills up.
    """
    prompts = [exercises[one.exercise].prompt for one in rollouts]
    length = max(len(p.ids) + len(one.ids) for p, one in zip(prompts, rollouts, strict=True))
    shape = (len(rollouts), length)
    ids_BL = torch.full(shape, pad)
    sampled_BL, start_BL = torch.zeros(shape), torch.zeros(shape)
    answer_BL = torch.zeros(shape, dtype=torch.bool)
    for row, (prompt, one) in enumerate(zip(prompts, rollouts, strict=True)):
        answer = slice(len(prompt.ids), len(prompt.ids) + len(one.ids))
        ids_BL[row, : answer.stop] = torch.tensor([*prompt.ids, *one.ids])
        answer_BL[row, answer] = True
        sampled_BL[row, answer] = torch.tensor(one.sampled)
        start_BL[row, answer] = torch.tensor(one.start)
    asked = list(dict.fromkeys(one.exercise for one in rollouts))
    pixels = [torch.from_numpy(exercises[index].prompt.pixels) for index in asked]
    ends = accumulate(len(images) for images in pixels)
    images_of = {
        index: range(end - len(images), end)
        for index, images, end in zip(asked, pixels, ends, strict=True)
    }
    shown = [number for one in rollouts for number in images_of[one.exercise]]
    return PolicyBatch(
        ids_BL=ids_BL,
        answer_BL=answer_BL,
        sampled_BL=sampled_BL,
        start_BL=start_BL,
        advantage_B=torch.tensor([one.advantage for one in rollouts]),
        reward_B=torch.tensor([one.reward for one in rollouts]),
        pixels_NCSS=torch.cat([images for images in pixels if len(images)]) if shown else None,
        image_of_K=torch.tensor(shown, dtype=torch.long),
    )


def answer_logprobs(model: MedGemma, batch: PolicyBatch) -> Tensor:
    """Log-probabilities (T,) of all answers' tokens, laid end to end."""
    soft = None
    if batch.pixels_NCSS is not None:
        soft = model.embed_images(batch.pixels_NCSS)[batch.image_of_K]
    x_BLD = model.hidden(batch.ids_BL[:, :-1], soft_NTD=soft)
    answer_BL = batch.answer_BL[:, 1:]
    head = model.language_model.embed_tokens.weight
    return token_logprobs(x_BLD[answer_BL], head, batch.ids_BL[:, 1:][answer_BL])
