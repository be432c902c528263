"""Measures what packing costs: how far the nanos move from their float32 selves.

    python -m osler.evaluation.quantisation --data PACK > table.md

Scores of validation texts as Kullback-Leibler divergence from float32, in nats a token: of the
decoder with rounded weights in torch, and of packed folders on the native engine, which rounds
activations too. Q4_0 is what GGUF's plain rounding makes of the same weights. Embeddings as cosine
with those of float32. Figures go to standard output as Markdown (or JSON).

Shapes: B batch, L positions, V vocabulary, N images or texts, D embedding size, R rows, C columns.
"""

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import osler
from osler.errors import OslerError
from osler.ingest.image_pack import read_image_pack
from osler.ingest.read import read_image_bytes
from osler.ingest.text_pack import read_text_pack
from osler.models.checkpoint import load_medgemma
from osler.models.medgemma import MedGemma
from osler.native.calibration import input_moments
from osler.native.decoder_weights import decoder_parts
from osler.native.library import library
from osler.native.quantize import Rounding, quantize_int4, round_q4_0
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.locate import locate
from osler.tasks.quantize import calibration_ids, quantize

DECODER, ENCODER = "medgemma-nano", "medsiglip-nano"
Q4_0 = "Q4_0 rounding"

# Name of a matrix as `decoder_parts` has it, and rows of it.
Rounder = Callable[[str, Tensor], Tensor]
# Ids (1, L) to scores (1, L, V).
Scorer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """How far a decoder's scores are from those of float32.

    Attributes:
        weights: their format.
        engine: "torch", where only weights are rounded, or "native".
        kl: mean over all tokens, in nats.
        of_q4_0: the same as a share of Q4_0's.
        same_best: share of tokens whose best successor is the same.
        tokens: how many.
    """

    weights: str
    engine: str
    kl: float
    of_q4_0: float
    same_best: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How alike the embeddings of a packed encoder are to those of float32.

    Attributes:
        weights: their format.
        of: "images" or "texts".
        mean: cosine.
        least: cosine.
        count: how many were embedded.
    """

    weights: str
    of: str
    mean: float
    least: float
    count: int


@dataclass(frozen=True, kw_only=True)
class WeightError:
    """Squared error of int4 as a share of Q4_0's, inputs that all count the same."""

    weights: str
    int4_of_q4_0: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m osler.evaluation.quantisation", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="the data pack")
    parser.add_argument("--limit", type=int, default=60, metavar="N", help="of texts, of images")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args(argv)
    try:
        errors = list(weight_errors())
        divergences = decoder_divergences(args.data, args.limit)
        likenesses = list(encoder_likenesses(args.data, args.limit))
    except OslerError as error:
        sys.stderr.write(f"osler: {error}\n")
        return 1
    if args.json:
        values = {
            "decoder": [asdict(figure) for figure in divergences],
            "encoder": [asdict(figure) for figure in likenesses],
            "weights": [asdict(figure) for figure in errors],
        }
        sys.stdout.write(json.dumps(values, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_tables(divergences, likenesses, errors)) + "\n")
    return 0


def decoder_divergences(data: str, limit: int) -> list[Divergence]:
    """Of the nano decoder, on validation texts.

    Args:
        data: the data pack.
        limit: the most texts of each kind.

    Raises:
        UnreadableFileError: the pack lacks a text.
    """
    folder = locate(DECODER, "medgemma")
    tokenizer = Tokenizer.from_folder(folder)
    texts = [torch.tensor([tokenizer.encode(t, add_bos=True)]) for t in _texts(data, limit)]
    model = load_medgemma(folder, dtype=torch.float32)
    moments = input_moments(model, calibration_ids(tokenizer))
    rounders: dict[str, Rounder] = {
        Q4_0: lambda name, rows: round_q4_0(rows),
        "int8": lambda name, rows: _int8(rows),
        "int4, to the nearest": lambda name, rows: _int4(rows, Rounding.plain(rows.shape[1])),
        "int4": lambda name, rows: _int4(rows, Rounding(moments[name])),
    }
    scorers: dict[tuple[str, str], Scorer] = {
        (weights, "torch"): _rounded(model, rounder) for weights, rounder in rounders.items()
    }
    with tempfile.TemporaryDirectory() as place:
        for to in ("bf16", "int8", "int4") if library() is not None else ():
            quantize(DECODER, Path(place) / to, to=to)
            scorers[to, "native"] = osler.load(Path(place) / to).logits
        return _divergences(model, scorers, texts)


def encoder_likenesses(data: str, limit: int) -> Iterator[Likeness]:
    """Of the nano encoder's embeddings on the native engine, validation images and their texts."""
    if library() is None:
        return
    items = list(islice(read_image_pack(data, "val"), limit))
    images = [read_image_bytes(item.image_bytes, f"{item.key}.webp") for item in items]
    texts = [text[:200] for text in _texts(data, limit)]
    plain = osler.load_encoder(ENCODER, dtype="float32")
    wanted = plain.embed_images(images), plain.embed_texts(texts)
    with tempfile.TemporaryDirectory() as place:
        for to in ("bf16", "int8"):
            quantize(ENCODER, Path(place) / to, to=to)
            packed = osler.load_encoder(Path(place) / to)
            yield _likeness(to, "images", wanted[0], packed.embed_images(images))
            yield _likeness(to, "texts", wanted[1], packed.embed_texts(texts))


def weight_errors() -> Iterator[WeightError]:
    """On random weights: normal ones, and ones with heavier tails."""
    torch.manual_seed(0)
    shape = (256, 2560)
    for name, weight_RC in (
        ("normal", torch.randn(shape)),
        ("Student's t, 5 degrees of freedom", torch.distributions.StudentT(5.0).sample(shape)),
        ("Student's t, 3 degrees of freedom", torch.distributions.StudentT(3.0).sample(shape)),
    ):
        ours = (_int4(weight_RC, Rounding.plain(shape[1])) - weight_RC).square().mean()
        theirs = (round_q4_0(weight_RC) - weight_RC).square().mean()
        yield WeightError(weights=name, int4_of_q4_0=float(ours / theirs))


def _texts(data: str, limit: int) -> Iterator[str]:
    for row in islice(read_text_pack(data, "mts_dialog", "val"), limit):
        yield (
            f"<start_of_turn>user\nSummarize this conversation.\n\n{row['dialogue']}<end_of_turn>\n"
            f"<start_of_turn>model\n{row['section_text']}<end_of_turn>\n"
        )
    for row in islice(read_text_pack(data, "aci_bench", "val"), limit):
        yield str(row["note"])


def _int4(weight_RC: Tensor, rounding: Rounding) -> Tensor:
    return quantize_int4(weight_RC, rounding).weight_RC()[:, : weight_RC.shape[1]]


def _int8(weight_RC: Tensor) -> Tensor:
    """The largest of a row becomes 127; smaller scales, which cut it off, only lose."""
    scale_R1 = weight_RC.abs().amax(dim=1, keepdim=True) / 127
    return (weight_RC / scale_R1).round() * scale_R1


@torch.inference_mode()
def _rounded(model: MedGemma, rounder: Rounder) -> Scorer:
    """The model in torch with its decoder's matrices rounded."""
    rounded = copy.deepcopy(model)
    weights = dict(rounded.named_parameters())
    for part in decoder_parts(model.config.text_config):
        for source in part.sources if part.is_matrix else ():
            weights[source].copy_(rounder(part.name, weights[source]))
    return rounded


@torch.inference_mode()
def _divergences(
    model: MedGemma, scorers: dict[tuple[str, str], Scorer], texts: Sequence[Tensor]
) -> list[Divergence]:
    kl = dict.fromkeys(scorers, 0.0)
    same = dict.fromkeys(scorers, 0)
    for ids_1L in texts:
        wanted_1LV = model(ids_1L).log_softmax(dim=-1)
        for key, score in scorers.items():
            found_1LV = score(ids_1L).log_softmax(dim=-1)
            kl[key] += float((wanted_1LV.exp() * (wanted_1LV - found_1LV)).sum())
            same[key] += int((wanted_1LV.argmax(dim=-1) == found_1LV.argmax(dim=-1)).sum())
    tokens = sum(ids_1L.shape[1] for ids_1L in texts)
    return [
        Divergence(
            weights=weights,
            engine=engine,
            kl=total / tokens,
            of_q4_0=total / kl[Q4_0, "torch"],
            same_best=same[weights, engine] / tokens,
            tokens=tokens,
        )
        for (weights, engine), total in kl.items()
    ]


def _likeness(
    weights: str, of: str, wanted_ND: NDArray[np.float32], found_ND: NDArray[np.float32]
) -> Likeness:
    cosine_N = (wanted_ND * found_ND).sum(axis=1)
    return Likeness(
        weights=weights,
        of=of,
        mean=float(cosine_N.mean()),
        least=float(cosine_N.min()),
        count=len(cosine_N),
    )


def _tables(
    divergences: Sequence[Divergence],
    likenesses: Sequence[Likeness],
    errors: Sequence[WeightError],
) -> Iterator[str]:
    yield "| Decoder's weights | Engine | KL to float32 | Of Q4_0's | Same best token | Tokens |"
    yield "|---|---|---:|---:|---:|---:|"
    for row in divergences:
        yield (
            f"| {row.weights} | {row.engine} | {row.kl:.5f} | {row.of_q4_0:.3f} | "
            f"{row.same_best:.1%} | {row.tokens:,} |"
        )
    yield "\n| Encoder's weights | Of | Mean cosine | Least | Count |\n|---|---|---:|---:|---:|"
    for like in likenesses:
        yield f"| {like.weights} | {like.of} | {like.mean:.5f} | {like.least:.5f} | {like.count} |"
    yield "\n| Random weights | Squared error of int4, to the nearest, of Q4_0's |\n|---|---:|"
    for error in errors:
        yield f"| {error.weights} | {error.int4_of_q4_0:.3f} |"


if __name__ == "__main__":
    sys.exit(main())
