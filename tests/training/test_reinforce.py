"""Reinforcement learning on a tiny model: what is drawn, what is learnt, what is written."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from osler.errors import InputError
from osler.models.checkpoint import load_medgemma, save_medgemma
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor, Prompt
from osler.testing.models import randomise
from osler.testing.packs import one_of_each_class, write_image_pack
from osler.testing.tokenizers import tiny_medgemma_folder
from osler.training.exercises import _CHECKS
from osler.training.loop import LoopConfig, train
from osler.training.policy_batch import (
    Exercise,
    PolicyBatch,
    answer_logprobs,
    policy_batch,
)
from osler.training.recipes.job import Job
from osler.training.recipes.reinforce import ReinforceConfig, ReinforceTask, reinforce
from osler.training.rollouts import SAMPLES, RolloutConfig, Rollouts

TINY = RolloutConfig(questions=4, samples=4, max_new_tokens=6, guard_tokens=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with all its files."""
    path = tmp_path_factory.mktemp("tiny")
    config = tiny_medgemma_folder(path)
    model = MedGemma(config)
    randomise(model)
    save_medgemma(model, path)
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def letters_e(answer: str) -> float:
    """The share of an answer's letters that are an "e"."""
    return answer.count("e") / max(3, len(answer))


def exercises(folder: Path, count: int = 5) -> list[Exercise]:
    """Some questions with an image, some without."""
    processor = Processor.from_folder(folder)
    made = []
    for number in range(count):
        parts: list[dict] = [{"type": "text", "text": "Describe this image." + " Yes?" * number}]
        if number % 2 == 0:
            pixels = np.full((9, 9, 3), 40 * number, dtype=np.uint8)
            parts.insert(0, {"type": "image", "image": pixels})
        prompt = processor([{"role": "user", "content": parts}])
        made.append(Exercise(prompt=prompt, reward=letters_e, question=f"q{number}", truth="e"))
    return made


def rollouts(
    folder: Path,
    out: Path,
    config: RolloutConfig = TINY,
    asked: Sequence[Exercise] | None = None,
) -> Rollouts:
    model, start = load_medgemma(folder), load_medgemma(folder)
    tokenizer = Processor.from_folder(folder).tokenizer
    return Rollouts(model, start, tokenizer, asked or exercises(folder), config, out)


def test_the_engine_and_the_loss_agree_on_what_was_drawn(folder: Path, tmp_path: Path) -> None:
    batch = next(rollouts(folder, tmp_path))
    assert batch.ids_BL.shape[0] == 16
    assert batch.pixels_NCSS is not None
    assert len(batch.pixels_NCSS) < len(batch.image_of_K), "an image more than once"
    found = answer_logprobs(load_medgemma(folder), batch)
    wanted = batch.sampled_BL[batch.answer_BL]
    assert wanted.max() < 0
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(batch.start_BL[batch.answer_BL], wanted, rtol=1e-4, atol=1e-4)
    assert not batch.sampled_BL[~batch.answer_BL].any()


def test_what_is_drawn_in_bfloat16_is_compared_with_what_drew_it(
    folder: Path, tmp_path: Path
) -> None:
    model = load_medgemma(folder)
    tokenizer = Processor.from_folder(folder).tokenizer
    drawn = Rollouts(model, model, tokenizer, exercises(folder), TINY, tmp_path, bf16=True)
    for _ in range(2):
        batch = next(drawn)
        found = answer_logprobs(copy.deepcopy(model).bfloat16(), to_bfloat16(batch)).detach()
        wanted = batch.sampled_BL[batch.answer_BL]
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.1)
        with torch.no_grad():  # the next generation is drawn by other weights
            model.language_model.norm.weight.mul_(3.0)
    assert model.language_model.norm.weight.dtype == torch.float32


def to_bfloat16(batch: PolicyBatch) -> PolicyBatch:
    assert batch.pixels_NCSS is not None
    return replace(batch, pixels_NCSS=batch.pixels_NCSS.bfloat16())


def test_answers_to_a_question_differ_and_are_compared_with_one_another(
    folder: Path, tmp_path: Path
) -> None:
    batch = next(rollouts(folder, tmp_path))
    answers = [
        tuple(row[mask].tolist()) for row, mask in zip(batch.ids_BL, batch.answer_BL, strict=True)
    ]
    assert len(set(answers)) > 12
    for group in batch.advantage_B.view(4, 4):
        assert abs(group.sum()) < 1e-5
    spread = batch.reward_B.view(4, 4).std(dim=1)
    assert bool((spread > 0).any())
    # What is cut off costs.
    cut = batch.answer_BL.sum(dim=1) == TINY.max_new_tokens
    assert cut.any()
    assert (batch.reward_B[cut] < 0).all()


def test_the_same_run_draws_the_same_and_goes_on_from_its_state(
    folder: Path, tmp_path: Path
) -> None:
    config = replace(TINY, parts=2)
    first, second = (
        rollouts(folder, tmp_path / "a", config),
        rollouts(folder, tmp_path / "b", config),
    )
    for _ in range(3):
        one, other = next(first), next(second)
        assert torch.equal(one.ids_BL, other.ids_BL)
    state = json.loads(json.dumps(first.state_dict()))
    wanted = [next(first) for _ in range(3)]
    again = rollouts(folder, tmp_path / "a", config)
    again.load_state_dict(state)
    for batch in wanted:
        found = next(again)
        assert torch.equal(found.ids_BL, batch.ids_BL)
        torch.testing.assert_close(found.advantage_B, batch.advantage_B)
        torch.testing.assert_close(found.sampled_BL, batch.sampled_BL)
    logged = [line["generation"] for line in lines(tmp_path / "a" / SAMPLES)]
    assert logged == sorted(logged), "lines of what was done twice"


def test_every_question_comes_once_an_epoch(folder: Path, tmp_path: Path) -> None:
    config = replace(TINY, questions=1, samples=2, max_new_tokens=1, guard_tokens=1)
    drawn = rollouts(folder, tmp_path, config)
    asked = [next(drawn).ids_BL[0].tolist() for _ in range(10)]
    prompts = [exercise.prompt.ids for exercise in exercises(folder)]
    for epoch in (asked[:5], asked[5:]):
        numbers = [prompts.index(ids[:-1]) for ids in epoch]
        assert sorted(numbers) == [0, 1, 2, 3, 4]


def test_a_question_without_an_image_needs_no_pixels(folder: Path, tmp_path: Path) -> None:
    asked = [exercises(folder)[1]]
    batch = next(rollouts(folder, tmp_path, replace(TINY, questions=2), asked))
    assert batch.pixels_NCSS is None
    assert len(answer_logprobs(load_medgemma(folder), batch)) == batch.answer_BL.sum()


@pytest.mark.parametrize("wrong", [{"samples": 1}, {"questions": 3, "parts": 2}, {"parts": 0}])
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(InputError):
        RolloutConfig(**wrong)


def test_no_questions(folder: Path, tmp_path: Path) -> None:
    model = load_medgemma(folder)
    with pytest.raises(InputError, match="no questions"):
        Rollouts(model, model, Processor.from_folder(folder).tokenizer, [], TINY, tmp_path)


def test_the_reward_rises(folder: Path, tmp_path: Path) -> None:
    config = ReinforceConfig(
        divergence_weight=0.01,
        rollouts=RolloutConfig(
            questions=4, samples=8, parts=2, max_new_tokens=6, guard_tokens=1, logged=2
        ),
    )
    loop = LoopConfig(steps=36, learning_rate=1e-2, schedule="constant")
    model = load_medgemma(folder)
    tower = [parameter.clone() for parameter in model.vision_tower.parameters()]
    tokenizer = Processor.from_folder(folder).tokenizer
    task = ReinforceTask(model, tokenizer, exercises(folder), [], config, tmp_path)
    train(task, loop, tmp_path)
    steps = lines(tmp_path / "metrics.jsonl")
    rewards = [step["reward"] for step in steps]
    assert len(rewards) == 36
    before, after = np.mean(rewards[:6]), np.mean(rewards[-6:])
    assert after > before + 0.4, (before, after)
    assert any(step["clipped"] > 0 for step in steps), "nothing was ever clipped"
    assert steps[-1]["divergence"] > 0
    assert all(map(torch.equal, tower, model.vision_tower.parameters()))
    samples = lines(tmp_path / SAMPLES)
    assert len(samples) == 2 * 18
    assert samples[-1]["mean_reward"] > samples[0]["mean_reward"]


def test_the_recipe_leaves_a_model_that_is_not_the_old_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tiny model never says a word; but some of its letters are better than others.
    monkeypatch.setitem(_CHECKS, "token_f1", lambda answer, truth: letters_e(answer))
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"question": f"{'Is it the heart?' * (1 + i)}", "check": "token_f1", "answer": "the heart"}
        for i in range(11)
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = Job(data=questions, out=tmp_path / "out", model=str(folder), steps=2, bf16=False)
    config = ReinforceConfig(rollouts=replace(TINY, max_new_tokens=12))
    assert reinforce(job, config) == tmp_path / "out" / "model"
    found = lines(tmp_path / "out" / "metrics.jsonl")[-1]["evaluation"]
    assert found["reward_low"] <= found["reward"] <= found["reward_high"]
    trained = load_medgemma(tmp_path / "out" / "model")
    old = load_medgemma(folder)
    assert (trained.language_model.norm.weight - old.language_model.norm.weight).any()
    Processor.from_folder(tmp_path / "out" / "model")
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["recipe"] == "reinforce"
    assert run["data"][0]["file"] == "questions.jsonl"


def test_the_recipe_asks_the_data_pack(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image_pack(tmp_path / "data", split, one_of_each_class())
    job = Job(data=tmp_path / "data", out=tmp_path / "out", model=str(folder), steps=1)
    reinforce(replace(job, batch_size=2), ReinforceConfig(asked_in_evaluation=3))
    (first, *_) = lines(tmp_path / "out" / SAMPLES)
    assert "Options: A)" in first["question"]
    assert first["truth"] in tuple("ABCD")


def test_a_batch_is_laid_out_behind_its_prompts() -> None:
    from osler.training.policy_batch import Rollout

    asked = [
        Exercise(prompt=Prompt(ids=[1, 2, 3]), reward=letters_e, question="", truth=""),
        Exercise(prompt=Prompt(ids=[4]), reward=letters_e, question="", truth=""),
    ]

    def rollout(exercise: int, ids: list[int]) -> Rollout:
        values = [-float(i) for i in ids]
        return Rollout(
            exercise=exercise,
            ids=ids,
            text="",
            sampled=values,
            start=values,
            reward=1.0,
            advantage=0.5,
        )

    batch = policy_batch([rollout(1, [5, 6]), rollout(0, [7])], asked, pad=0)
    assert batch.ids_BL.tolist() == [[4, 5, 6, 0], [1, 2, 3, 7]]
    assert batch.answer_BL.tolist() == [[False, True, True, False], [False] * 3 + [True]]
    assert batch.sampled_BL.tolist() == [[0, -5, -6, 0], [0, 0, 0, -7]]
    assert batch.image_of_K.tolist() == []
