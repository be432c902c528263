"""Post-training (b): answers to validation questions, before and after learning from rewards."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from bench.recipe.figures import gain
from bench.recipe.record import Record, curves, points, proof, samples, table
from bench.recipe.setting import Setting
from osler.evaluation.embedded import first_of_each_set
from osler.evaluation.figure import ACCURACY, Figure, share
from osler.evaluation.speed import fast_assistant
from osler.inference.generate import complete
from osler.inference.sampling import SamplingParams
from osler.training.exercises import Exercises, Lesson, Question, pack_questions
from osler.training.recipes.reinforce import ReinforceConfig, reinforce
from osler.training.rollouts import RolloutConfig
from osler.training.run_log import read_metrics

TITLES: dict[Lesson, str] = {
    "choice": "choose the finding by its letter (the lesson)",
    "pneumonia": "pneumonia, yes or no (not in the lesson)",
    "vqa_rad": "VQA-RAD, yes or no (not in the lesson)",
}
BEFORE, AFTER = "before", "after"
# A tenth of the decoder's rate while it learnt to speak; the recipe's own is for large models.
LEARNING_RATE = 1e-4
PARAMS = SamplingParams(max_new_tokens=32)
_TOGETHER = 48
_BETTER, _WORSE = 6, 3
_SMOOTHING = 0.9


def prove(setting: Setting) -> Record:
    """Train on the lesson's questions, then ask all validation questions of both models."""
    steps = setting.few(150, 1)
    out = setting.out / "reinforcement"
    if not (out / "model").exists():
        drawn = RolloutConfig(
            questions=setting.few(8, 2), samples=setting.few(8, 2), max_new_tokens=32
        )
        config = ReinforceConfig(
            lesson="choice", asked_in_evaluation=setting.few(64, 2), rollouts=drawn
        )
        reinforce(setting.job(out, setting.chat_model, steps, LEARNING_RATE), config)
    items = first_of_each_set(setting.pack, "val", setting.few(10**6, 2))
    figures: list[Figure] = []
    shown: list[list[str]] = []
    for lesson, name in TITLES.items():
        questions = pack_questions(items, lesson, seed=1, balanced=False)
        if not questions:
            continue
        said = {
            BEFORE: _answers(setting.chat_model, questions, f"{lesson}, {BEFORE}"),
            AFTER: _answers(out / "model", questions, f"{lesson}, {AFTER}"),
        }
        right = {
            by: [
                question.reward(answer) == 1
                for question, answer in zip(questions, of_one, strict=True)
            ]
            for by, of_one in said.items()
        }
        groups = [question.group for question in questions]
        figures += [share(name, right[by], groups, by=by) for by in (BEFORE, AFTER)]
        figures.append(gain(name, ACCURACY, right[BEFORE], right[AFTER], groups, "after - before"))
        if lesson == "choice":
            shown = _changed(questions, said[BEFORE], said[AFTER])
    return proof(
        tables=[
            table(
                "Validation questions answered right",
                "All questions of the validation images; an answer that cannot be parsed counts "
                "as wrong. Intervals are by patient, gains paired.",
                figures,
            )
        ],
        plots=[
            curves(
                "reinforcement-reward.png",
                "What the drawn answers earn, while the model learns from them",
                "step",
                "mean reward",
                {"reward, 0 to 1": _rewards(out)},
            ),
            points(
                "reinforcement.png",
                "Validation questions answered right",
                "share",
                [figure for figure in figures if figure.metric == ACCURACY],
            ),
        ],
        words=[
            samples(
                f"Answers that changed: the first {_BETTER} that became right, and the first "
                f"{_WORSE} that became wrong",
                ("question", "right", "before", "after"),
                shown,
            )
        ],
        settings={"steps": steps, "learning rate": LEARNING_RATE},
    )


def _answers(model: Path, questions: Sequence[Question], says: str) -> list[str]:
    found: list[str] = []
    with fast_assistant(str(model)) as assistant:
        exercises = Exercises(questions, assistant.processor)
        for start in tqdm(range(0, len(questions), _TOGETHER), desc=says):
            prompts = [one.prompt for one in exercises[start : start + _TOGETHER]]
            found += [one.text for one in complete(assistant.engine, prompts, PARAMS)]
    return found


def _changed(
    questions: Sequence[Question], before: Sequence[str], after: Sequence[str]
) -> list[list[str]]:
    rows: dict[bool, list[list[str]]] = {True: [], False: []}
    for question, first, last in zip(questions, before, after, strict=True):
        was, became = question.reward(first) == 1, question.reward(last) == 1
        if was != became:
            rows[became].append([question.text, str(question.truth), first, last])
    return rows[True][:_BETTER] + rows[False][:_WORSE]


def _rewards(out: Path) -> dict[str, list[tuple[float, float, float]]]:
    """Of every step, and smoothed."""
    each = [(line["step"], line["reward"], 0.0) for line in read_metrics(out) if "reward" in line]
    smooth: list[tuple[float, float, float]] = []
    for step, reward, _ in each:
        last = smooth[-1][1] if smooth else reward
        smooth.append((step, _SMOOTHING * last + (1 - _SMOOTHING) * reward, 0.0))
    return {"each step": each, "running mean": smooth}
