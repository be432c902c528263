"""Post-training (a): a student with its teacher's scores against the same student without.

Both begin with the same random weights and read the same tokens in the same order; one learns the
next token, the other what its teacher found likely in its place.
"""

from dataclasses import replace
from pathlib import Path

import torch

from bench.recipe.answers import answers, classified, names_the_class, names_the_study
from bench.recipe.figures import Losses, gain, loss, loss_change
from bench.recipe.losses import sequence_losses
from bench.recipe.record import Record, points, proof, table
from bench.recipe.setting import Setting, image_id
from osler.evaluation.caption_figures import DESCRIBE
from osler.evaluation.class_answers import CLASS_QUESTION
from osler.evaluation.embedded import first_of_each_set
from osler.evaluation.figure import ACCURACY, Figure, share
from osler.models.checkpoint import load_medgemma
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor
from osler.training.decoder import Batch, initialise
from osler.training.recipes.distill import DistillConfig, distill
from osler.training.recipes.job import save_result
from osler.training.taught_batches import PackSequences
from osler.training.teachers import Told, reading_batch

TAUGHT, PLAIN, TEACHER = "student with scores", "student without", "teacher"
GAIN = "with against without"
_TOGETHER = 16


def prove(setting: Setting) -> Record:
    """Train both students, then read and ask."""
    steps, stored = setting.few(500, 1), setting.few(3000, 16)
    out = setting.out / "distillation"
    student = _student(setting, out / "student")
    folders = {}
    for name, part in ((TAUGHT, 1.0), (PLAIN, 0.0)):
        folder = out / name.replace(" ", "-")
        folders[name] = folder / "model"
        if folders[name].exists():
            continue
        if name == PLAIN and not (folder / "store").exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "store").symlink_to(folders[TAUGHT].parent.resolve() / "store")
        config = DistillConfig(
            teacher=str(setting.chat_model), afresh=True, stored=stored, taught_share=part
        )
        distill(setting.job(folder, student, steps), config)
    folders[TEACHER] = setting.chat_model
    layers = load_medgemma(setting.chat_model).config.text_config.num_hidden_layers
    perplexities, said = _perplexities(setting, folders), _answers(setting, folders)
    return proof(
        tables=[
            table(
                "Perplexity of held-back sequences",
                "Of text, and of answers about images. n: sequences. A loss change (nats a token) "
                "below zero is a gain.",
                perplexities,
            ),
            table(
                "Answers about validation images",
                f"Right is a description that names modality and body part, and an answer to "
                f'"{CLASS_QUESTION}" that names the right class. The gain is paired by image.',
                said,
            ),
        ],
        plots=[
            points(
                "distillation-perplexity.png",
                "How well held-back text and answers are foretold (less is better)",
                "perplexity",
                [figure for figure in perplexities if figure.metric == "perplexity"],
            ),
            points(
                "distillation-answers.png",
                "Answers about validation images",
                "share that is right",
                [figure for figure in said if figure.metric == ACCURACY],
            ),
        ],
        settings={
            "steps": steps,
            "sequences with scores": stored,
            "layers of the teacher": layers,
            "of the students": _half(layers),
        },
    )


def _student(setting: Setting, folder: Path) -> Path:
    """A smaller decoder behind the teacher's tower; its weights are drawn by the recipe."""
    if not folder.exists():
        teacher = load_medgemma(setting.chat_model, dtype=torch.float32)
        text = teacher.config.text_config
        layers = _half(text.num_hidden_layers)
        small = replace(text, num_hidden_layers=layers, layer_types=text.layer_types[-layers:])
        model = MedGemma(replace(teacher.config, text_config=small))
        initialise(model)
        model.vision_tower.load_state_dict(teacher.vision_tower.state_dict())
        save_result(model, folder, like=setting.chat_model)
    return folder


def _half(layers: int) -> int:
    return (layers + 1) // 2


def _perplexities(setting: Setting, folders: dict[str, Path]) -> list[Figure]:
    processor = Processor.from_folder(setting.chat_model)
    sequences = PackSequences(setting.pack, "val", processor, seed=1)
    told = [sequences[number] for number in range(setting.few(800, 16))]
    models = {name: load_medgemma(folder, dtype=torch.float32) for name, folder in folders.items()}
    figures: list[Figure] = []
    for name, with_image in (("text", False), ("answers about images", True)):
        chosen = [one for one in told if bool(one.image) == with_image]
        if not chosen:
            continue
        groups = [one.image or tuple(one.sequence.ids) for one in chosen]
        losses: dict[str, Losses] = {
            by: sequence_losses(model, _batches(chosen, model), f"{name}, {by}")
            for by, model in models.items()
        }
        figures += [
            loss(name, losses[by], groups, by, perplexity=True) for by in (PLAIN, TAUGHT, TEACHER)
        ]
        figures.append(loss_change(name, losses[PLAIN], losses[TAUGHT], groups, GAIN))
    return figures


def _batches(told: list[Told], model: MedGemma) -> list[Batch]:
    made = []
    for start in range(0, len(told), _TOGETHER):
        rows = [one.row() for one in told[start : start + _TOGETHER]]
        batch = reading_batch(rows, model)
        made.append(
            Batch(ids_BL=batch.ids_BL, learn_BL=batch.learn_BL, pixels_NCSS=batch.pixels_NCSS)
        )
    return made


def _answers(setting: Setting, folders: dict[str, Path]) -> list[Figure]:
    items = classified(first_of_each_set(setting.pack, "val", setting.few(80, 2)))
    groups = [image_id(item) for item in items]
    requests = [(item, asked) for item in items for asked in (DESCRIBE, CLASS_QUESTION)]
    said = answers(folders, requests)
    figures: list[Figure] = []
    for first, name, is_right in (
        (0, "names modality and body part", names_the_study),
        (1, "names the right class", names_the_class),
    ):
        right = {
            by: [is_right(*pair) for pair in zip(items, of_one[first::2], strict=True)]
            for by, of_one in said.items()
        }
        figures += [share(name, right[by], groups, by=by) for by in (PLAIN, TAUGHT, TEACHER)]
        figures.append(gain(name, ACCURACY, right[PLAIN], right[TAUGHT], groups, GAIN))
    return figures
