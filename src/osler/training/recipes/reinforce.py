"""Reinforcement learning with image and text, from rewards that need no judge.

    osler train reinforce --data DIR --out DIR

The data pack is asked for the classes of its images; a file of questions is asked as it is, with
every tenth held back. The run's metrics.jsonl has the reward of every step, samples.jsonl some of
the answers. The vision tower rests; decoder and projector learn.

Source: MedGemma (arXiv 2507.05201), section 2.3; DeepSeekMath (arXiv 2402.03300), section 4.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from osler.evaluation.metrics import bootstrap_interval
from osler.inference.sampling import SamplingParams
from osler.ingest.image_pack import read_image_pack
from osler.models.checkpoint import load_medgemma
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.locate import locate
from osler.training.decoder import unused_images
from osler.training.exercises import Exercises, Lesson, pack_questions, read_questions
from osler.training.grpo import policy_loss
from osler.training.loop import LoopConfig, Size, train
from osler.training.policy_batch import Exercise, PolicyBatch, answer_logprobs
from osler.training.recipes.job import Job, in_own_memory, part, save_result
from osler.training.rollouts import RolloutConfig, Rollouts, draw_answers, drawing
from osler.training.streams.shards import find_shards

_AT_ONCE = 64


LOOP = LoopConfig(
    steps=100,
    learning_rate=2e-5,
    schedule="constant",
    warmup_steps=5,
    betas=(0.9, 0.99),
    bf16=True,
    checkpoint_every=25,
)


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """Settings of the recipe.

    Attributes:
        lesson: what images of the data pack are asked for.
        clip: see `grpo.policy_loss`.
        divergence_weight: likewise.
        asked_in_evaluation: validation questions, the first ones; None for all.
        rollouts: how answers are drawn.
    """

    lesson: Lesson = "choice"
    clip: float = 0.2
    divergence_weight: float = 0.04
    asked_in_evaluation: int | None = None
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)


class ReinforceTask:
    """A model that learns from its own answers.

    Args:
        model: its vision tower is left alone.
        tokenizer: the model's.
        exercises: to train on.
        held_back: to measure with.
        config: settings.
        out: the run's folder.
        bf16: as `Rollouts` takes it.
    """

    unit = "tokens"

    def __init__(
        self,
        model: MedGemma,
        tokenizer: Tokenizer,
        exercises: Sequence[Exercise],
        held_back: Sequence[Exercise],
        config: ReinforceConfig,
        out: Path,
        *,
        bf16: bool = False,
    ) -> None:
        if model.config.vision_config is not None:
            model.vision_tower.requires_grad_(False)
        self.model = model
        start = copy.deepcopy(model).requires_grad_(False).eval()
        self.batches = Rollouts(model, start, tokenizer, exercises, config.rollouts, out, bf16=bf16)
        self._tokenizer, self._held_back, self._config = tokenizer, held_back, config
        self._bf16 = bf16

    def size(self, batch: PolicyBatch) -> Size:
        """Every answer counts the same."""
        return Size(weight=len(batch.ids_BL), units=int(batch.answer_BL.sum()))

    def loss(self, batch: PolicyBatch) -> tuple[Tensor, dict[str, float]]:
        """The clipped objective, with the mean reward of the answers."""
        zero = unused_images(self.model) if batch.pixels_NCSS is None else 0.0
        answer_BL = batch.answer_BL[:, 1:]
        tokens_B = answer_BL.sum(dim=1)
        spread = [
            values_B[:, None].expand_as(answer_BL)[answer_BL]
            for values_B in (batch.advantage_B, 1 / (len(tokens_B) * tokens_B))
        ]
        found = policy_loss(
            answer_logprobs(self.model, batch),
            batch.sampled_BL[:, 1:][answer_BL],
            batch.start_BL[:, 1:][answer_BL],
            *spread,
            clip=self._config.clip,
            divergence_weight=self._config.divergence_weight,
        )
        return found.loss + zero, {
            "reward": float(batch.reward_B.mean()),
            "divergence": float(found.divergence),
            "clipped": float(found.clipped),
            "answer_tokens": float(tokens_B.float().mean()),
        }

    def evaluate(self) -> dict[str, float]:
        """Mean reward of the likeliest answers to validation questions, with its interval."""
        if not self._held_back:
            return {}
        rewards = greedy_rewards(
            drawing(self.model, self._bf16),
            self._tokenizer,
            self._held_back,
            self._config.rollouts.max_new_tokens,
        )
        low, high = bootstrap_interval(
            lambda values, _: float(values.mean()),
            rewards,
            rewards,
            [exercise.group for exercise in self._held_back],
        )
        return {"reward": sum(rewards) / len(rewards), "reward_low": low, "reward_high": high}


def greedy_rewards(
    model: MedGemma, tokenizer: Tokenizer, exercises: Sequence[Exercise], max_new_tokens: int
) -> list[float]:
    """What a model's likeliest answers earn.

    Args:
        model: any.
        tokenizer: the model's.
        exercises: to answer.
        max_new_tokens: where an answer is cut off.
    """
    params = SamplingParams(max_new_tokens=max_new_tokens)
    rewards: list[float] = []
    for first in range(0, len(exercises), _AT_ONCE):
        asked = exercises[first : first + _AT_ONCE]
        answers = draw_answers(model, tokenizer, [(one.prompt, params) for one in asked])
        rewards += [one.reward(answer.text) for one, answer in zip(asked, answers, strict=True)]
    return rewards


def reinforce(job: Job, config: ReinforceConfig | None = None) -> Path:
    """Train; the model is left in `model`, and `batch_size` is the questions of a generation.

    Raises:
        InputError: data that cannot be read, or settings that make no sense.
    """
    config = config or ReinforceConfig()
    loop = job.loop(LOOP)
    asked = job.batch_size or config.rollouts.questions
    rollouts = replace(config.rollouts, questions=asked, seed=loop.seed)
    config = replace(config, rollouts=rollouts)
    folder = locate(job.model or "nano", "medgemma")
    model = in_own_memory(load_medgemma(folder, dtype=torch.float32))
    processor = Processor.from_folder(folder)
    exercises, held_back = _questions(job.data, config, processor)
    task = ReinforceTask(
        model, processor.tokenizer, exercises, held_back, config, job.out, bf16=loop.bf16
    )
    sources = find_shards(part(job.data, "images"))
    about = {**job.about("reinforce", sources), "settings": asdict(config)}
    train(task, loop, job.out, resume=job.resume, about=about)
    save_result(model, job.out / "model", like=folder)
    return job.out / "model"


def _questions(
    data: Path, config: ReinforceConfig, processor: Processor
) -> tuple[Exercises, Exercises]:
    """To train on, and held back."""
    if data.is_file():
        read = read_questions(data)
        held_back = read[::10]
        asked = [question for i, question in enumerate(read) if i % 10]
    else:
        asked, held_back = (
            pack_questions(read_image_pack(data, split), config.lesson, seed=config.rollouts.seed)
            for split in ("train", "val")
        )
    held_back = held_back[: config.asked_in_evaluation]
    return Exercises(asked, processor), Exercises(held_back, processor)
