"""Fine-tuning: breast ultrasound, which no phase has seen, by each method; and what is lost by it.

What the adapters became is merged first, so that all answer by the same engine.
"""

import csv
import io
from collections import Counter
from pathlib import Path

from bench.recipe.answers import answers, classified, names_the_class
from bench.recipe.figures import gain
from bench.recipe.record import Record, points, proof, table
from bench.recipe.setting import Setting, image_id
from osler.evaluation.class_answers import CLASS_QUESTION
from osler.evaluation.class_task import TITLES
from osler.evaluation.embedded import first_of_each_set
from osler.evaluation.figure import ACCURACY, Figure, share
from osler.ingest.image_pack import PackedImage, Split, read_image_pack
from osler.tasks.adapter import RECORD
from osler.training.finetune.merge import merge
from osler.training.finetune.output import RUN
from osler.training.finetune.run import finetune
from osler.training.finetune.settings import METHODS, FinetuneConfig
from osler.training.run_log import write_whole

BEFORE = "before"
SET = "us_busi"
QUESTION = "What does this breast ultrasound show: benign mass, malignant mass, or no mass?"
LABELS = {"benign": "benign mass", "malignant": "malignant mass", "normal": "no mass"}


def prove(setting: Setting) -> Record:
    """Fine-tune by each method, then ask about the new images and about all others."""
    out = setting.out / "finetuning"
    folders = {BEFORE: setting.chat_model}
    data = _table_of(setting, "train", out / "data")
    epochs = setting.few(5, 1)
    for method in METHODS:
        config = FinetuneConfig(method=method, epochs=epochs, batch_size=8, question=QUESTION)
        folders[method] = _tuned(setting.chat_model, data, out, config)
    new = _of_held_out(setting, "val")
    others = classified(first_of_each_set(setting.pack, "val", setting.few(120, 2)))
    requests = [*((item, QUESTION) for item in new), *((item, CLASS_QUESTION) for item in others)]
    said = answers(folders, requests)
    items = [*new, *others]
    right = {
        by: [names_the_class(*pair) for pair in zip(items, of_one, strict=True)]
        for by, of_one in said.items()
    }
    names = [TITLES[item.set_name] for item in items]
    rows = {TITLES[SET]: [place for place, name in enumerate(names) if name == TITLES[SET]]}
    rows["all other sets"] = [place for place, name in enumerate(names) if name != TITLES[SET]]
    for name in dict.fromkeys(names[len(new) :]):
        rows[name] = [place for place, of in enumerate(names) if of == name]
    figures = [_commonest(setting, new)]
    for name, chosen in rows.items():
        groups = [image_id(items[place]) for place in chosen]
        of = {by: [of_one[place] for place in chosen] for by, of_one in right.items()}
        figures += [share(name, of[by], groups, by=by) for by in (BEFORE, *METHODS)]
        figures += [
            gain(name, ACCURACY, of[BEFORE], of[method], groups, method) for method in METHODS
        ]
    return proof(
        tables=[
            table(
                "Answers that name the right class, before and after",
                "The first row is what was learnt, the others what was lost by it. Breast "
                f'ultrasound is asked as in the fine-tuning, the others "{CLASS_QUESTION}" '
                "Intervals are by patient or case, gains paired.",
                figures,
            )
        ],
        plots=[
            points(
                "finetuning.png",
                "Answers that name the right class",
                "share",
                [figure for figure in figures if figure.metric == ACCURACY],
            )
        ],
        settings={
            "images learnt from": len(_of_held_out(setting, "train")),
            "epochs": epochs,
            "question": QUESTION,
        },
    )


def _of_held_out(setting: Setting, split: Split) -> list[PackedImage]:
    """The new images: of the whole data pack, since `Setting.pack` is without them."""
    images = [item for item in read_image_pack(setting.data, split) if item.set_name == SET]
    return images[: setting.few(len(images), 6)]


def _table_of(setting: Setting, split: Split, folder: Path) -> Path:
    """The new images as a user has them: files, and a table that names their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("image", "label"))
    for item in _of_held_out(setting, split):
        name = f"{item.key}.webp"
        (folder / name).write_bytes(item.image_bytes)
        rows.writerow((name, LABELS[str(item.labels["finding"])]))
    write_whole(folder / f"{split}.csv", text.getvalue())
    return folder / f"{split}.csv"


def _tuned(model: Path, data: Path, out: Path, config: FinetuneConfig) -> Path:
    """A checkpoint that was fine-tuned by a method; made unless it is there."""
    folder = out / config.method
    if not (folder / RECORD).exists():
        finetune(model, data, folder, config, resume=(folder / RUN).is_dir())
    if config.method == "full":
        return folder
    merged = out / f"{config.method}-merged"
    if not merged.exists():
        merge(folder, merged, dtype="float32")
    return merged


def _commonest(setting: Setting, new: list[PackedImage]) -> Figure:
    """What the commonest class of the training images would get right among the new ones."""
    learnt = Counter(str(item.labels["finding"]) for item in _of_held_out(setting, "train"))
    right = [item.labels["finding"] == learnt.most_common(1)[0][0] for item in new]
    return share(TITLES[SET], right, [image_id(item) for item in new], by="the commonest class")
