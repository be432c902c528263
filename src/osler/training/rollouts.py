"""Answers of the model in training to questions whose answers can be checked.

Our own engine generates them, all of a generation together: several to each question, each from a
seed of its own. Then they are learnt from, in one step or a few.

Shapes: P questions, G answers to each.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from osler.errors import InputError
from osler.inference.continuation import Generation
from osler.inference.engine import Engine
from osler.inference.limits import Limits
from osler.inference.sampling import SamplingParams
from osler.inference.torch_runner import TorchRunner
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer
from osler.training.distributed import Ranks, current_ranks, gathered, is_sharded
from osler.training.grpo import group_advantages
from osler.training.loop import to_device
from osler.training.optim import precision
from osler.training.policy_batch import (
    Exercise,
    PolicyBatch,
    Rollout,
    answer_logprobs,
    policy_batch,
)
from osler.training.rewards import length_guard
from osler.training.run_log import write_whole

SAMPLES = "samples.jsonl"
_RUNNING = 64


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How answers are drawn.

    Attributes:
        questions: of a generation, over all ranks.
        samples: answers to each.
        parts: in how many parts a generation is learnt from, one after the other; from the second
            on the weights are not those any more that drew the answers.
        max_new_tokens: where an answer is cut off.
        guard_tokens: over how many tokens before that an answer's length begins to cost.
        logged: how many answers of a generation are written to samples.jsonl.
        seed: of questions and answers.

    Raises:
        InputError: fewer than two answers, or questions that cannot be parted evenly.
    """

    questions: int = 8
    samples: int = 8
    parts: int = 1
    max_new_tokens: int = 48
    guard_tokens: int = 12
    logged: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise InputError("samples must be at least 2: answers are compared with one another")
        if self.parts < 1 or self.questions % self.parts:
            raise InputError("questions must be a multiple of parts")


def drawing(model: MedGemma, bf16: bool) -> MedGemma:
    """What answers for a model in training; all ranks must call this.

    Args:
        model: perhaps sharded.
        bf16: a copy in bfloat16, as the loop's products are then. Autocast would convert every
            weight again for each token.
    """
    if bf16 or is_sharded(model):
        dtype = torch.bfloat16 if bf16 else torch.float32
        return gathered(model, dtype, current_ranks().device)
    return model


def draw_answers(
    model: MedGemma, tokenizer: Tokenizer, jobs: Sequence[tuple[Prompt, SamplingParams]]
) -> list[Generation]:
    """Answer prompts by an engine that is new: what an older one knows, other weights computed.

    Args:
        model: as it is now; left in evaluation mode.
        tokenizer: the model's.
        jobs: prompts, and how to answer each.
    """
    limits = Limits(max_running=_RUNNING, max_waiting=len(jobs), waiting_bytes=1 << 62)
    engine = Engine(TorchRunner(model), tokenizer, limits=limits)
    requests = [engine.submit(prompt, params) for prompt, params in jobs]
    generations = []
    model.eval()
    with torch.autocast(current_ranks().device.type, enabled=False):
        for request in requests:
            *_, last = request
            assert isinstance(last, Generation)
            generations.append(last)
    return generations


class Rollouts:
    """Batches of answers without end; each rank generates its share, all know all.

    Args:
        model: in training.
        start: the same model as training begins with; never changed.
        tokenizer: the model's.
        exercises: questions, in a new order each epoch.
        config: how many.
        out: the run's folder, for samples.jsonl.
        bf16: as `drawing` takes it; what drew is what the ratio compares with.

    Raises:
        InputError: no exercises.
    """

    def __init__(
        self,
        model: MedGemma,
        start: MedGemma,
        tokenizer: Tokenizer,
        exercises: Sequence[Exercise],
        config: RolloutConfig,
        out: Path,
        *,
        bf16: bool = False,
    ) -> None:
        if not exercises:
            raise InputError("no questions to train on")
        self._model, self._start, self._tokenizer = model, start, tokenizer
        self._exercises, self._config, self._out = exercises, config, out
        self._bf16 = bf16
        self._generation = 0
        self._waiting: list[list[Rollout]] = []

    def __next__(self) -> PolicyBatch:
        ranks = current_ranks()
        if not self._waiting:
            self._waiting = self._generate(ranks)
            self._generation += 1
        part, samples = self._waiting.pop(0), self._config.samples
        own = ranks.share(len(part) // samples)
        return self._batch(part[own.start * samples : own.stop * samples])

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""
        waiting = [[asdict(one) for one in part] for part in self._waiting]
        return {"generation": self._generation, "waiting": waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; what was logged later is dropped."""
        self._generation = state["generation"]
        self._waiting = [[Rollout(**one) for one in part] for part in state["waiting"]]
        path = self._out / SAMPLES
        if current_ranks().rank == 0 and path.exists():
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
            kept = [line for line in lines if json.loads(line)["generation"] < self._generation]
            write_whole(path, "".join(f"{line}\n" for line in kept))

    @torch.no_grad()
    def _generate(self, ranks: Ranks) -> list[list[Rollout]]:
        """One generation, in its parts."""
        config = self._config
        own = ranks.share(config.questions)
        asked = self._asked()[own]
        jobs = [
            (self._exercises[index].prompt, self._params(place, sample))
            for place, index in enumerate(asked, start=own.start)
            for sample in range(config.samples)
        ]
        answers = draw_answers(drawing(self._model, self._bf16), self._tokenizer, jobs)
        numbers = [index for index in asked for _ in range(config.samples)]
        rewards = [self._reward(*pair) for pair in zip(numbers, answers, strict=True)]
        rewards_PG = torch.tensor(rewards).view(-1, config.samples)
        drawn = [
            Rollout(
                exercise=number,
                ids=list(answer.ids),
                text=answer.text,
                sampled=[one.logprob for one in answer.logprobs or ()],
                start=[0.0] * len(answer.ids),
                reward=reward,
                advantage=advantage,
            )
            for number, answer, reward, advantage in zip(
                numbers,
                answers,
                rewards,
                group_advantages(rewards_PG).flatten().tolist(),
                strict=True,
            )
        ]
        drawn = self._with_start(drawn, ranks)
        if ranks.world > 1:
            shares: list[list[Rollout]] = [[] for _ in range(ranks.world)]
            dist.all_gather_object(shares, drawn)
            drawn = [one for share in shares for one in share]
        if ranks.rank == 0:
            self._log(drawn)
        size = len(drawn) // config.parts
        return [drawn[i : i + size] for i in range(0, len(drawn), size)]

    def _asked(self) -> list[int]:
        """The questions of this generation: the next ones of an order that is new each epoch."""
        count, first = len(self._exercises), self._generation * self._config.questions
        places = range(first, first + self._config.questions)
        orders = {
            epoch: random.Random(repr((self._config.seed, epoch))).sample(range(count), count)
            for epoch in {place // count for place in places}
        }
        return [orders[place // count][place % count] for place in places]

    def _params(self, place: int, sample: int) -> SamplingParams:
        seed = repr((self._config.seed, self._generation, place, sample))
        return SamplingParams(
            max_new_tokens=self._config.max_new_tokens,
            temperature=1.0,  # the model as it is: the ratio compares what drew with what learns
            seed=random.Random(seed).getrandbits(62),
            logprobs=0,
        )

    def _reward(self, number: int, answer: Generation) -> float:
        config = self._config
        guard = length_guard(len(answer.ids), config.max_new_tokens, config.guard_tokens)
        return self._exercises[number].reward(answer.text) + guard

    def _with_start(self, drawn: list[Rollout], ranks: Ranks) -> list[Rollout]:
        """Add what the weights of the start think of the answers."""
        samples, found = self._config.samples, []
        for first in range(0, len(drawn), samples):
            batch = to_device(self._batch(drawn[first : first + samples]), ranks.device)
            with precision(ranks.device, self._bf16):
                found += answer_logprobs(self._start, batch).tolist()
        rest = iter(found)
        return [replace(one, start=[next(rest) for _ in one.ids]) for one in drawn]

    def _batch(self, rollouts: Sequence[Rollout]) -> PolicyBatch:
        return policy_batch(rollouts, self._exercises, self._model.config.pad_token_id)

    def _log(self, drawn: Sequence[Rollout]) -> None:
        """Write down the generation's first answers."""
        mean = sum(one.reward for one in drawn) / len(drawn)
        lines = [
            {
                "generation": self._generation,
                "mean_reward": round(mean, 4),
                "question": self._exercises[one.exercise].question,
                "truth": self._exercises[one.exercise].truth,
                "answer": one.text,
                "reward": one.reward,
                "advantage": one.advantage,
            }
            for one in drawn[: self._config.logged]
        ]
        self._out.mkdir(parents=True, exist_ok=True)
        with (self._out / SAMPLES).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
