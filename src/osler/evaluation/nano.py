"""Measures the shipped nano models on the validation images of the data pack.

    python -m osler.evaluation.nano --data PACK > table.md

Figures go to standard output as a Markdown table (or JSON), progress to standard error.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby, islice

from tqdm import tqdm

import osler
from osler.errors import OslerError
from osler.evaluation.figure import markdown_table
from osler.evaluation.own_words import Answerer, own_words_figures
from osler.evaluation.zero_shot import zero_shot_figures
from osler.inference.generate import complete
from osler.inference.sampling import SamplingParams
from osler.ingest.image_pack import PackedImage, read_image_pack
from osler.ingest.read import read_image_bytes
from osler.tasks.assistant import Assistant

BATCH = 16
PARAMS = SamplingParams(max_new_tokens=64)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m osler.evaluation.nano", description=__doc__)
    parser.add_argument("--data", required=True, metavar="DIR", help="the data pack")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images of each set")
    parser.add_argument("--model", default="medgemma-nano", help="a MedGemma: name or folder")
    parser.add_argument("--encoder", default="medsiglip-nano", help="a MedSigLIP: name or folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    try:
        items = list(_first_of_each_set(args.data, args.limit))
        figures = [
            *zero_shot_figures(osler.load_encoder(args.encoder), items),
            *own_words_figures(batch_answerer(osler.load(args.model)), items),
        ]
    except OslerError as error:
        sys.stderr.write(f"osler: {error}\n")
        return 1
    report = (
        json.dumps([asdict(figure) for figure in figures], indent=2)
        if args.json
        else markdown_table(figures)
    )
    sys.stdout.write(f"{report}\n")
    return 0


def batch_answerer(assistant: Assistant) -> Answerer:
    """An answerer that asks the assistant several questions at once, always taking the best token.

    Answers in a batch are the same as alone; it is only faster.
    """

    def answer(items: Sequence[PackedImage], questions: Sequence[str]) -> list[str]:
        answers: list[str] = []
        for start in tqdm(range(0, len(items), BATCH), desc="answering", unit="batch"):
            batch = slice(start, start + BATCH)
            prompts = [
                assistant.processor(
                    [
                        {
                            "role": "user",
                            "content": [
                                {
                                    "type": "image",
                                    "image": read_image_bytes(item.image_bytes, f"{item.key}.webp"),
                                },
                                {"type": "text", "text": question},
                            ],
                        }
                    ]
                )
                for item, question in zip(items[batch], questions[batch], strict=True)
            ]
            generations = complete(assistant.engine, prompts, PARAMS)
            answers += [generation.text for generation in generations]
        return answers

    return answer


def _first_of_each_set(folder: str, limit: int | None) -> Iterator[PackedImage]:
    for _, of_set in groupby(read_image_pack(folder, "val"), key=lambda item: item.set_name):
        yield from islice(of_set, limit)


if __name__ == "__main__":
    sys.exit(main())
