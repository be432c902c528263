"""Measures an encoder and a MedGemma on the validation images of the data pack.

    python -m osler.evaluation.nano --data PACK > table.md
    python -m osler.evaluation.nano --data PACK --out report.json --card weights/MODEL_CARD.md

The encoder by linear probes fitted to the training images and zero-shot, MedGemma by what it
answers: see `encoder_figures`, `own_words`, `class_answers`, `closed_questions`, `caption_figures`.
Figures go to standard output as Markdown (or JSON), progress to standard error.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import osler
from osler.errors import OslerError
from osler.evaluation.caption_figures import caption_figures, caption_questions
from osler.evaluation.class_answers import class_answer_figures, class_questions
from osler.evaluation.closed_questions import (
    closed_question_figures,
    closed_questions,
    closed_requests,
)
from osler.evaluation.embedded import EmbeddedImages, embed_pack
from osler.evaluation.encoder_figures import Told, encoder_figures, told_by_encoder
from osler.evaluation.interview import Said, interview
from osler.evaluation.own_words import own_words_figures, own_words_questions, pneumonia_figures
from osler.evaluation.plots import draw_report
from osler.evaluation.report import (
    Section,
    between_markers,
    markdown,
    record,
    write_text,
)
from osler.evaluation.speed import fast_assistant, fast_encoder
from osler.evaluation.subgroups import subgroup_figures
from osler.ingest.image_pack import PackedImage

Sets = Mapping[str, EmbeddedImages]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the figures, and return the exit code."""
    args = _arguments(argv)
    about = {
        "encoder": _base_name(args.encoder),
        "model": _base_name(args.model),
        "osler": osler.__version__,
        "images of each set": "all" if args.limit is None else f"the first {args.limit}",
    }
    try:
        sections = measure(args.data, args.encoder, args.model, args.limit)
        text = markdown(sections, about)
        if args.out is not None:
            write_text(args.out, record(sections, about))
        if args.card is not None:
            write_text(args.card, between_markers(args.card, text))
        if args.plots is not None:
            draw_report([f for section in sections for f in section.figures], args.plots)
    except OslerError as error:
        sys.stderr.write(f"osler: {error}\n")
        return 1
    sys.stdout.write(record(sections, about) if args.json else text)
    return 0


def measure(
    data: str, encoder: str = "nano", model: str = "nano", limit: int | None = None
) -> list[Section]:
    """Measure an encoder and a MedGemma.

    Args:
        data: the data pack.
        encoder: a MedSigLIP: name or folder.
        model: a MedGemma: name or folder.
        limit: at most so many images of each set and split, the first ones.

    Raises:
        OslerError: the pack cannot be read, or a model cannot be loaded.
    """
    with fast_encoder(encoder) as embedder:
        val = embed_pack(embedder, data, "val", limit)
        train = embed_pack(embedder, data, "train", limit)
        told = list(told_by_encoder(embedder, train, val))
    with fast_assistant(model) as assistant:
        items = [item for of_set in val.values() for item in of_set.items]
        asked = closed_questions(items)
        said = interview(
            assistant,
            chain(
                own_words_questions(items),
                class_questions(items),
                closed_requests(asked),
                caption_questions(items),
            ),
        )
    return [*_of_encoder(told, val), *_of_answers(said, told, train, val)]


def _of_encoder(told: Sequence[Told], val: Sets) -> Iterator[Section]:
    yield Section(
        title="The encoder",
        says=(
            "A linear probe is logistic regression on the embeddings of a set's training images, "
            "its penalty chosen by cross-validation within these. Zero-shot is by the mean of each "
            "label's prompts. AUC is the mean over labels, each against the rest; accuracy counts "
            "the most probable label, of an eye with several labels any of these."
        ),
        figures=[figure for of_set in told for figure in encoder_figures(of_set)],
    )
    yield Section(
        title="Subgroups",
        says="The encoder's figures by age and sex, where a set tells them.",
        figures=[
            figure
            for of_set in told
            for figure in subgroup_figures(of_set, val[of_set.task.set_name].items)
        ],
    )


def _of_answers(said: Said, told: Sequence[Told], train: Sets, val: Sets) -> Iterator[Section]:
    items: dict[str, list[PackedImage]] = {name: of_set.items for name, of_set in val.items()}
    every = list(chain.from_iterable(items.values()))
    yield Section(
        title="Modality and body part in the model's own words",
        says="Free answers that name both, and no other modality.",
        figures=list(own_words_figures(said, every)),
    )
    yield Section(
        title="Pneumonia in the model's own words",
        says="Balanced accuracy; an answer that says neither, or both, counts as wrong.",
        figures=list(pneumonia_figures(said, every)),
    )
    yield Section(
        title="The classifications as questions",
        says=(
            "The class that an answer names, beside the encoder's on the same images; one that "
            "names none counts as wrong."
        ),
        figures=list(class_answer_figures(said, items, told)),
    )
    yield Section(
        title="Closed questions of VQA-RAD",
        says=(
            "Against baselines that see the question and not the image: logistic regression on its "
            "words, and the commonest answer to its type, both of the training questions."
        ),
        figures=list(
            closed_question_figures(
                said,
                closed_questions(train["vqa_rad"].items if "vqa_rad" in train else ()),
                closed_questions(every),
            )
        ),
    )
    yield Section(
        title="Descriptions",
        says=(
            "Against the caption of the training image of the same set that the encoder finds "
            "nearest. But for MedPix, captions are made from labels, and a neighbour's has the "
            "reference's own wording: there only label F1 is a contest."
        ),
        figures=list(caption_figures(said, train, val)),
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m osler.evaluation.nano", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="the data pack")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images of each set")
    parser.add_argument("--model", default="medgemma-nano", help="a MedGemma: name or folder")
    parser.add_argument("--encoder", default="medsiglip-nano", help="a MedSigLIP: name or folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--card", type=Path, metavar="FILE", help="write the tables between this file's markers"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the figures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args(argv)


def _base_name(name: str) -> str:
    """A model's name without the folders that it lies in."""
    return Path(name).name


if __name__ == "__main__":
    sys.exit(main())
