"""The recipe of the two nano models, phase by phase.

    python -m osler.training.nano encoder --data DIR    # images and captions: the sigmoid loss
    python -m osler.training.nano refine --data DIR     # the same, on whole images
    python -m osler.training.nano heads --data DIR      # the same, over a vision tower that rests
    python -m osler.training.nano text --data DIR       # the decoder reads; may run beside these
    python -m osler.training.nano images --data DIR     # the decoder learns to speak of images
    python -m osler.training.nano export                # both folders in `--out`

Each phase keeps its state in `--runs` and continues from there when called again.
"""

import argparse
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from osler.ingest.image_pack import PackedImage, read_image_pack
from osler.models.checkpoint import save_medgemma, save_medsiglip
from osler.models.config import medgemma_nano, medsiglip_nano
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.preprocess.siglip_tokenizer import SiglipTokenizer
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.checkpoint_extras import DEMONSTRATION, write_notice
from osler.training.captions import instruction_pairs
from osler.training.contrastive import (
    ContrastiveConfig,
    Lessons,
    VariedImages,
    train_contrastive,
)
from osler.training.contrastive import initialise as initialise_encoders
from osler.training.conversation import TrainingSequence, conversation, document
from osler.training.corpus import text_samples
from osler.training.decoder import (
    Batch,
    DecoderConfig,
    initialise,
    packed_batches,
    padded_batch,
    train_decoder,
)
from osler.training.features import encode_images
from osler.training.images import load_squares
from osler.training.optim import load_state, save_state

_SEQUENCES = 40
# What 98 of 100 questions about an image take with their answers; one length compiles once.
_LENGTH = 104
_TEXT_SHARE = 0.1
# Of the 196 patches of an image.
_KEPT_PATCHES = 64
# Images of sets with fewer than so many are stored in so many views more.
_SMALL_SET = 1000
_MORE_VIEWS = 5


def encoder_phase(data: Path, runs: Path, weights: Path, steps: int) -> None:
    """Phase 1: both encoders of MedSigLIP-nano, on a third of each image's patches."""
    torch.manual_seed(0)
    model = MedSiglip(medsiglip_nano())
    items = list(read_image_pack(data, "train"))
    squares = load_squares(items, model.config.vision_config.image_size)
    initialise_encoders(model, squares)
    patches_of = VariedImages(model.vision_model, items, squares, kept_patches=_KEPT_PATCHES)
    _compile([model.vision_model.encoder.layers, model.text_model.encoder.layers])
    config = ContrastiveConfig(steps=steps, learning_rate=4e-4)
    tokenize = _tokenize_captions(weights)
    train_contrastive(model, items, patches_of, tokenize, config, _state(runs, "encoder"))


def refine_phase(data: Path, runs: Path, weights: Path, steps: int) -> None:
    """Phase 1, its end: the same on all patches, as the encoders will be used."""
    model = MedSiglip(medsiglip_nano())
    model.load_state_dict(_required(runs, "encoder")["model"])
    items = list(read_image_pack(data, "train"))
    squares = load_squares(items, model.config.vision_config.image_size)
    patches_of = VariedImages(model.vision_model, items, squares, seed=1)
    _compile([model.vision_model.encoder.layers, model.text_model.encoder.layers])
    config = ContrastiveConfig(steps=steps, learning_rate=1e-4, seed=1)
    tokenize = _tokenize_captions(weights)
    train_contrastive(model, items, patches_of, tokenize, config, _state(runs, "refine"))


def heads_phase(data: Path, runs: Path, weights: Path, steps: int) -> None:
    """Phase 1, last: pooling head and text tower go on over a vision tower that rests.

    Several times as fast, which serves the small sets most.
    """
    model = MedSiglip(medsiglip_nano())
    model.load_state_dict(_required(runs, "refine")["model"])
    model.vision_model.requires_grad_(False)
    items = list(read_image_pack(data, "train"))
    patches_NPD, rows = _features(items, runs)
    rng = random.Random(0)

    def patches_of(chosen: Sequence[int]) -> Tensor:
        return patches_NPD[[rng.choice(rows[i]) for i in chosen]].float()

    _compile([model.text_model.encoder.layers])
    config = ContrastiveConfig(steps=steps, choice_weight=3.0)
    tokenize = _tokenize_captions(weights)
    train_contrastive(model, items, patches_of, tokenize, config, _state(runs, "heads"))


def text_phase(data: Path, runs: Path, weights: Path, steps: int) -> None:
    """Phase 2: the decoder of MedGemma-nano on text."""
    tokenizer = Tokenizer.from_folder(weights / "medgemma-nano")
    model = _fresh_medgemma()
    _compile([model.language_model.layers])
    batches = packed_batches(_text_sequences(data, tokenizer, seed=0), 16, 256)
    train_decoder(model, batches, DecoderConfig(steps=steps), _state(runs, "text"))


def images_phase(data: Path, runs: Path, weights: Path, steps: int) -> None:
    """Phase 3: the decoder on questions about images, with some text so that it stays fluent."""
    tokenizer = Tokenizer.from_folder(weights / "medgemma-nano")
    model = _fresh_medgemma()
    model.language_model.load_state_dict(_required(runs, "text")["modules"][0])
    items = list(read_image_pack(data, "train"))
    patches_NPD, rows = _features(items, runs)
    _compile([model.language_model.layers])
    batches = _image_batches(data, items, patches_NPD, rows, tokenizer, model)
    config = DecoderConfig(steps=steps, learning_rate=1e-3)
    train_decoder(model, batches, config, _state(runs, "images"))


def export(runs: Path, weights: Path) -> None:
    """Write both models in bfloat16, beside the tokenizers that are there already."""
    encoder_state = _required(runs, "heads")["model"]
    encoder = MedSiglip(medsiglip_nano())
    encoder.load_state_dict(encoder_state)
    save_medsiglip(encoder.bfloat16(), weights / "medsiglip-nano")
    write_notice(weights / "medsiglip-nano", DEMONSTRATION)
    model = _fresh_medgemma()
    _take(model.vision_tower, encoder_state, "vision_model.")
    modules = _required(runs, "images")["modules"]
    model.language_model.load_state_dict(modules[0])
    model.multi_modal_projector.load_state_dict(modules[1])
    save_medgemma(model.bfloat16(), weights / "medgemma-nano")
    write_notice(weights / "medgemma-nano", DEMONSTRATION)


def _tokenize_captions(weights: Path) -> Callable[[Sequence[str]], Tensor]:
    tokenizer = SiglipTokenizer.from_folder(weights / "medsiglip-nano")
    return lambda texts: torch.tensor([tokenizer.encode(text) for text in texts])


def _features(items: Sequence[PackedImage], runs: Path) -> tuple[Tensor, list[list[int]]]:
    """Patches of several views of every image, (rows, P, D), made once; and each image's rows.

    An image is there as it is and varied; one of a small set, which comes up often, varied anew
    several times.
    """
    path = runs / "features.pt"
    in_set = Counter(item.set_name for item in items)
    small = [i for i, item in enumerate(items) if in_set[item.set_name] < _SMALL_SET]
    varied = [*range(len(items)), *small * _MORE_VIEWS]
    rows: list[list[int]] = [[i] for i in range(len(items))]
    for row, index in enumerate(varied, start=len(items)):
        rows[index].append(row)
    if not path.exists():
        tower = MedSiglip(medsiglip_nano()).vision_model
        _take(tower, _required(runs, "refine")["model"], "vision_model.")
        squares = load_squares(items, medsiglip_nano().vision_config.image_size)
        sets = [item.set_name for item in items]
        plain = encode_images(tower, squares, sets, varied=False)
        again = encode_images(tower, squares[varied], [sets[i] for i in varied], varied=True)
        save_state(path, {"patches_NPD": torch.cat([plain, again])})
    # Mapped, so that two phases that run side by side share the memory.
    patches_NPD: Tensor = torch.load(path, weights_only=True, mmap=True)["patches_NPD"]
    return patches_NPD, rows


def _compile(stacks: Iterable[nn.ModuleList]) -> None:
    """Fuse the blocks' many small steps, in which most of a small model's time goes.

    The pattern matcher would put back the attention that `short_sequences` avoids.
    """
    for stack in stacks:
        for layer in stack:
            layer.compile(dynamic=False, options={"pattern_matcher": False})


def _image_batches(
    data: Path,
    items: Sequence[PackedImage],
    patches_NPD: Tensor,
    rows: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    model: MedGemma,
) -> Iterator[Batch]:
    """Mixed batches of conversations about images and of text, without end."""
    rng = random.Random(0)
    config = model.config
    soft = "<image_soft_token>" * config.mm_tokens_per_image
    image_text = f"\n\n<start_of_image>{soft}<end_of_image>\n\n"
    texts = _text_sequences(data, tokenizer, seed=1)
    lessons = Lessons(items, rng)
    while True:
        sequences: list[TrainingSequence] = []
        while len(sequences) < _SEQUENCES:
            if rng.random() < _TEXT_SHARE:
                sequences.append(next(texts))
                continue
            [index] = lessons.images(1)
            described, *others = instruction_pairs(items[index], rng)
            # One question each: the answer to a second could be read off the first.
            # What is found is harder than what is shown; questions about it come last in the list.
            turn = rng.choice([described] * 3 + others + others[-3:] * 3)
            sequence = conversation(
                tokenizer.encode,
                [turn],
                bos=config.bos_token_id,
                image=rng.choice(rows[index]),
                image_text=image_text,
            )
            if len(sequence.ids) <= _LENGTH:
                sequences.append(sequence)
        yield padded_batch(
            sequences,
            lambda images: model.multi_modal_projector.pooled(patches_NPD[images].float()),
            pad=config.pad_token_id,
            length=_LENGTH,
        )


def _text_sequences(data: Path, tokenizer: Tokenizer, seed: int) -> Iterator[TrainingSequence]:
    rng = random.Random(seed)
    bos, eos = medgemma_nano().bos_token_id, medgemma_nano().eos_token_ids[0]
    while True:
        samples = list(text_samples(data, "train", rng))
        rng.shuffle(samples)
        for question, answer in samples:
            if question is None:
                yield document(tokenizer.encode, answer, bos=bos, eos=eos)
            else:
                turns = [(question, answer)]
                yield conversation(tokenizer.encode, turns, bos=bos, learn_prompts=True)


def _fresh_medgemma() -> MedGemma:
    torch.manual_seed(0)
    model = MedGemma(medgemma_nano())
    initialise(model)
    return model


def _state(runs: Path, phase: str) -> Path:
    return runs / phase / "state.pt"


def _required(runs: Path, phase: str) -> dict[str, Any]:
    state = load_state(_state(runs, phase))
    if state is None:
        raise SystemExit(f"{_state(runs, phase)} is not there: run the phase {phase!r} first")
    return state


def _take(module: nn.Module, state: dict[str, Tensor], prefix: str) -> None:
    """Load the part of a state under `prefix`."""
    module.load_state_dict(
        {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    )


def main() -> None:
    """Run one phase from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m osler.training.nano",
        description="Train the nano models, one phase a call.",
        epilog="example: python -m osler.training.nano encoder --data ../shared/data",
    )
    parser.add_argument("phase", choices=("encoder", "refine", "heads", "text", "images", "export"))
    parser.add_argument("--data", type=Path, help="the data pack's folder")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where states are kept")
    parser.add_argument("--out", type=Path, default=Path("weights"), help="the models' folders")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the released run's)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    if arguments.phase == "export":
        export(arguments.runs, arguments.out)
        return
    if arguments.data is None:
        parser.error(f"the phase {arguments.phase!r} needs --data")
    run, steps = {
        "encoder": (encoder_phase, 3600),
        "refine": (refine_phase, 120),
        "heads": (heads_phase, 1500),
        "text": (text_phase, 1000),
        "images": (images_phase, 1500),
    }[arguments.phase]
    run(arguments.data, arguments.runs, arguments.out, arguments.steps or steps)


if __name__ == "__main__":
    main()
