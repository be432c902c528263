"""One phase of training by Osler's loop, in a process of its own; ends with a line of JSON.

    python -m bench.train_ours PHASE --case FOLDER

`bench/train.py` calls it, in turns with the peers of `bench/peer_train.py`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.train_cases import BATCHES
from osler.models.checkpoint import load_medgemma, load_medsiglip
from osler.models.lora import LoraConfig, add_lora, target_names
from osler.models.medgemma import MedGemma
from osler.models.nf4 import hold_in_4_bits
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer
from osler.training.contrastive import PairBatch, PairTask
from osler.training.decoder import Batch, DecoderTask
from osler.training.finetune.lessons import LessonBatch
from osler.training.finetune.task import FinetuneTask
from osler.training.loop import LoopConfig, Task, train
from osler.training.losses import truths
from osler.training.policy_batch import Exercise
from osler.training.recipes import distill, encoder, pretrain, reinforce
from osler.training.recipes.job import in_own_memory
from osler.training.rollouts import RolloutConfig
from osler.training.run_log import read_metrics
from osler.training.taught_batches import TaughtBatch
from osler.training.teachers import ReadingBatch

# What every contender trains with.
LEARNING_RATE = 1e-3
ANSWERS, NEW_TOKENS = 8, 32


class Repeated:
    """Batches in turn, without end; when each was asked for is written down, by both clocks."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self._batches = batches
        self.asked: list[tuple[float, float]] = []

    def __next__(self) -> Any:
        self.asked.append((time.perf_counter(), time.process_time()))
        return self._batches[(len(self.asked) - 1) % len(self._batches)]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: these runs do not go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Likewise."""


class Timed(Repeated):
    """The same for batches that are made from the model, as answers are."""

    def __init__(self, batches: Any) -> None:
        self._made = batches
        self.asked = []

    def __next__(self) -> Any:
        self.asked.append((time.perf_counter(), time.process_time()))
        return next(self._made)


def contrastive(case: Path, out: Path) -> tuple[Task[Any], LoopConfig, int]:
    """Images and captions."""
    stored = load_file(case / BATCHES)
    model = in_own_memory(load_medsiglip(case / "medsiglip", dtype=torch.float32))
    made = []
    for ids, pixels in zip(stored["pairs.ids"], stored["pairs.pixels"], strict=True):
        keys = [str(number) for number in range(len(ids))]
        made.append(PairBatch(pixels_BCSS=pixels, ids_BL=ids, known=truths(keys, keys)))
    return PairTask(model, Repeated(made)), encoder.LOOP, len(made[0].ids_BL)


def text(case: Path, out: Path) -> tuple[Task[Any], LoopConfig, int]:
    """Pretraining on text."""
    model = _decoder(case)
    model.requires_grad_(False)
    model.language_model.requires_grad_(True)
    made = [
        Batch(ids_BL=ids, learn_BL=torch.ones_like(ids, dtype=torch.bool))
        for ids in load_file(case / BATCHES)["text.ids"]
    ]
    return DecoderTask(model, Repeated(made)), pretrain.TEXT, _read(made[0].ids_BL)


def talk(case: Path, out: Path) -> tuple[Task[Any], LoopConfig, int]:
    """Pretraining on images with text; the vision tower rests."""
    model = _decoder(case)
    model.vision_tower.requires_grad_(False)
    made = [Batch(ids_BL=i, learn_BL=n, pixels_NCSS=p) for i, n, p in _talks(case)]
    return DecoderTask(model, Repeated(made)), pretrain.IMAGES, _read(made[0].ids_BL)


def distilled(case: Path, out: Path) -> tuple[Task[Any], LoopConfig, int]:
    """256 tokens of a teacher in every place."""
    stored = load_file(case / BATCHES)
    made = []
    for ids, top, logits in zip(
        stored["text.ids"], stored["taught.ids"], stored["taught.logits"], strict=True
    ):
        learn = torch.ones_like(ids, dtype=torch.bool)
        learn[:, 0] = False
        reading = ReadingBatch(ids_BL=ids, learn_BL=learn, pixels_NCSS=None)
        made.append(TaughtBatch(reading=reading, top_ids_TK=top, top_logits_TK=logits))
    batches: Any = Repeated(made)
    task = distill.DistillTask(_decoder(case), batches, [], 1.0)
    return task, distill.LOOP, _read(made[0].reading.ids_BL)


def reinforced(case: Path, out: Path) -> tuple[Task[Any], LoopConfig, int]:
    """Answers drawn, and learnt from."""
    prompts = [
        Prompt(ids=ids.tolist(), pixels=torch.zeros(0, 3, 1, 1).numpy())
        for ids in load_file(case / BATCHES)["prompts.ids"]
    ]
    exercises = [
        Exercise(prompt=prompt, reward=_reward, question="", truth="") for prompt in prompts
    ]
    drawn = RolloutConfig(
        questions=len(prompts), samples=ANSWERS, max_new_tokens=NEW_TOKENS, guard_tokens=1
    )
    task = reinforce.ReinforceTask(
        _decoder(case),
        Tokenizer.from_folder(case / "medgemma"),
        exercises,
        [],
        reinforce.ReinforceConfig(rollouts=drawn),
        out,
        bf16=True,
    )
    task.batches = Timed(task.batches)  # type: ignore[assignment]  # the same with a clock
    return task, reinforce.LOOP, len(prompts) * ANSWERS * NEW_TOKENS


def tuned(case: Path, out: Path, method: str = "full") -> tuple[Task[Any], LoopConfig, int]:
    """A user's images with answers; prompt and image are masked."""
    dtype = torch.float32 if method == "full" else torch.bfloat16
    model = in_own_memory(load_medgemma(case / "medgemma", dtype=dtype))
    if method != "full":
        names = target_names(model)
        if method == "qlora":
            hold_in_4_bits(model)
        torch.manual_seed(0)
        add_lora(model, LoraConfig(), names)
    made = [LessonBatch(ids_BL=i, learn_BL=n, pixels_NCSS=p) for i, n, p in _talks(case)]
    batches: Any = Repeated(made)
    task = FinetuneTask(model, batches, None, 1)
    return task, LoopConfig(steps=1, bf16=True), _read(made[0].ids_BL)


Prepare = Callable[[Path, Path], tuple[Task[Any], LoopConfig, int]]

PHASES: dict[str, Prepare] = {
    "contrastive": contrastive,
    "text": text,
    "talk": talk,
    "distill": distilled,
    "reinforce": reinforced,
    "full": tuned,
    "lora": lambda case, out: tuned(case, out, "lora"),
    "qlora": lambda case, out: tuned(case, out, "qlora"),
}


def _decoder(case: Path) -> MedGemma:
    return in_own_memory(load_medgemma(case / "medgemma", dtype=torch.float32))


def _talks(case: Path) -> list[tuple[Tensor, Tensor, Tensor]]:
    stored = load_file(case / BATCHES)
    return list(zip(stored["talk.ids"], stored["talk.learn"], stored["talk.pixels"], strict=True))


def _read(ids_BL: Tensor) -> int:
    """Tokens that a step reads: the last of a row is only foretold."""
    return ids_BL[:, 1:].numel()


def _reward(answer: str) -> float:
    return answer.count("e") / max(1, len(answer))


def count_flops(phase: str, case: Path) -> int:
    """Of the matrix products and attention of one step, forward and back."""
    with tempfile.TemporaryDirectory() as out:
        task = PHASES[phase](case, Path(out))[0]
        counter: Any = FlopCounterMode(display=False)  # without types
        with counter:
            loss: Any = task.loss(next(task.batches))[0]  # `backward` has no types
            loss.backward()
    return int(counter.get_total_flops())


def peak_bytes() -> int:
    """The most memory that this process has held; of `getrusage`, a parent's would count too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no VmHWM in /proc/self/status")


def main() -> None:
    """Train, and say how fast."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--case", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not counted")
    parser.add_argument("--flops", action="store_true", help="only count what a step multiplies")
    given = parser.parse_args()
    if given.flops:
        sys.stdout.write(json.dumps({"flops": count_flops(given.phase, given.case)}) + "\n")
        return
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        start = time.perf_counter()
        task, recipe, units = PHASES[given.phase](given.case, out)
        loop = replace(
            recipe,
            # The last step's end is not seen, as a checkpoint follows it.
            steps=given.warm_up + given.steps + 1,
            learning_rate=LEARNING_RATE,
            schedule="constant",
            warmup_steps=0,
            weight_decay=0.0,
            betas=(0.9, 0.999),
            evaluate_every=None,
            checkpoint_every=10**9,
        )
        train(task, loop, out / "run")
        losses = [line["loss"] for line in read_metrics(out / "run") if "loss" in line]
    asked = task.batches.asked  # type: ignore[attr-defined]  # see `Repeated`
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(asked)]
    result = {
        "step_s": [wall for wall, _ in steps[given.warm_up :]],
        "step_cpu_s": [cpu for _, cpu in steps[given.warm_up :]],
        "start_s": asked[given.warm_up][0] - start,
        "units": units,
        "losses": losses[: given.warm_up + given.steps],
        "peak_bytes": peak_bytes(),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
