"""A classifier from few labels: logistic regression on the embeddings of a MedSigLIP.

Shapes: N images, D embedding size, C classes.

Source: linear probing as in CLIP (arXiv 2103.00020), appendix A.3: L2-regularised logistic
regression by L-BFGS, its strength chosen by cross-validation.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from osler.errors import InputError, UnreadableFileError
from osler.evaluation.linear_probe import FOLDS, STRENGTHS, fit
from osler.tasks.encoder import load_image_text_encoder
from osler.tasks.head import Head, save_head
from osler.tasks.locate import locate
from osler.training.finetune.data import read_examples
from osler.training.finetune.examples import BadRows, Examples
from osler.training.finetune.output import (
    Progress,
    base_name,
    check_out,
    silent,
    write_record,
)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What became of a probe; written beside it as `finetune.json`.

    Attributes:
        folder: of the result.
        method: "probe".
        base: the encoder.
        data_sha256: of the examples and their images.
        examples: how many.
        labels: the classes.
        strength: of the regularisation that was chosen.
        cross_validation_accuracy: of that strength, on the parts that it did not learn from.
        after: figures on the validation data; empty without such data.
        validation_examples: how many these are.
    """

    folder: str
    method: str
    base: str
    data_sha256: str
    examples: int
    labels: tuple[str, ...]
    strength: float
    cross_validation_accuracy: float
    after: dict[str, float]
    validation_examples: int


def probe(
    name: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    validation: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Probed:
    """Learn to tell labels apart over an encoder that rests.

    Args:
        name: a MedSigLIP, as `osler.load_encoder` takes it; packed ones do as well.
        data: a table of images with labels, or a folder with one.
        out: a new or empty folder; it gets a head for `tasks.head.load_classifier`.
        validation: data of the same form that are only measured on.
        seed: of the parts of the cross-validation.
        progress: called with "reading", the images done, and their number.

    Raises:
        ModelNotFoundError: no model by that name.
        CheckpointError: a folder that does not hold the model that it says, or an output folder
            that is not empty.
        UnreadableFileError: data that are not good, not labels, or too few of one.
    """
    folder, target = locate(name, "medsiglip"), Path(out)
    check_out(target)
    examples = _labelled(read_examples(data))
    held_out = None
    if validation is not None:
        held_out = _labelled(read_examples(validation, labels=examples.labels))
    _refuse_lonely(examples)
    encoder = load_image_text_encoder(folder, os.fspath(name))
    total = len(examples.rows) + (len(held_out.rows) if held_out else 0)

    def embedded(rows: Examples, done: int) -> Tensor:
        bad, vectors = BadRows(rows.path), []
        for number, row in enumerate(rows.rows, start=done + 1):
            try:
                vectors.append(torch.from_numpy(encoder.embed_images(row.images)))
            except InputError as error:
                bad.add(row.line, error)
            progress("reading", number, total)
        bad.refuse_if_any()
        return torch.cat(vectors)

    images_ND = embedded(examples, 0)
    unseen_ND = None if held_out is None else embedded(held_out, len(examples.rows))
    class_N = _classes(examples)
    accuracy, strength = _cross_validated(images_ND, class_N, len(examples.labels), seed)
    weight_CD, bias_C = fit(images_ND, F.one_hot(class_N, len(examples.labels)), strength)
    head = Head(
        encoder=base_name(name),
        classes=examples.labels,
        weight_CD=weight_CD.numpy(),
        bias_C=bias_C.numpy(),
    )
    after = {}
    if held_out is not None and unseen_ND is not None:
        told_N = head.probabilities(unseen_ND.numpy()).argmax(axis=1)
        right = float((told_N == _classes(held_out).numpy()).mean())
        after = {"validation_accuracy": right}
    save_head(head, target)
    done = Probed(
        folder=str(target),
        method="probe",
        base=base_name(name),
        data_sha256=examples.digest(),
        examples=len(examples.rows),
        labels=examples.labels,
        strength=strength,
        cross_validation_accuracy=accuracy,
        after=after,
        validation_examples=len(held_out.rows) if held_out else 0,
    )
    write_record(done, target)
    return done


def _labelled(examples: Examples) -> Examples:
    if not examples.labels:
        raise UnreadableFileError(
            f"{examples.path}: a probe learns images with labels, not questions with answers"
        )
    return examples


def _refuse_lonely(examples: Examples) -> None:
    counts = Counter(row.label for row in examples.rows)
    bad = BadRows(examples.path)
    for row in examples.rows:
        if counts[row.label] == 1:
            bad.add(row.line, "the only image of its label; a probe needs two or more of each")
    bad.refuse_if_any()


def _classes(examples: Examples) -> Tensor:
    number = {label: index for index, label in enumerate(examples.labels)}
    return torch.tensor([number[row.label] for row in examples.rows if row.label is not None])


def _cross_validated(
    images_ND: Tensor, class_N: Tensor, classes: int, seed: int
) -> tuple[float, float]:
    """The best accuracy on parts that were left out, and the strongest strength that reaches it."""
    folds = min(FOLDS, int(class_N.bincount().min()))
    fold_N = torch.empty_like(class_N)
    generator = torch.Generator().manual_seed(seed)
    for label in range(classes):  # every part gets its share of each class
        places = (class_N == label).nonzero()[:, 0]
        places = places[torch.randperm(len(places), generator=generator)]
        fold_N[places] = torch.arange(len(places)) % folds

    truth_NC = F.one_hot(class_N, classes)

    def accuracy(strength: float) -> float:
        right = 0
        for fold in range(folds):
            kept, left = fold_N != fold, fold_N == fold
            weight_CD, bias_C = fit(images_ND[kept], truth_NC[kept], strength)
            told_N = (images_ND[left] @ weight_CD.T + bias_C).argmax(dim=1)
            right += int((told_N == class_N[left]).sum())
        return right / len(class_N)

    scores = {strength: accuracy(strength) for strength in STRENGTHS}
    best = max(STRENGTHS, key=lambda strength: (scores[strength], strength))
    return scores[best], best
