"""Makes a packed folder of a checkpoint: what `osler quantize` does."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

import osler
from osler.errors import CheckpointError, PromptError, UnreadableFileError
from osler.models.checkpoint import load_medgemma, open_medgemma, open_medsiglip
from osler.models.config import MedGemmaConfig, MedSiglipConfig
from osler.models.safetensors_file import StoredTensor
from osler.native.bpe_table import SOURCE_FILE, write_tables
from osler.native.calibration import input_moments
from osler.native.pack_model import FORMATS, ModelPacker, Source, packed_model_bytes
from osler.native.packed_file import PACKED_FILE, write_packed
from osler.native.packing import Packer
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.checkpoint_extras import config_field
from osler.tasks.locate import locate
from osler.tasks.packed_folder import (
    check_out,
    copy_descriptions,
    is_packed,
    native_library,
    new_packed_folder,
)

ENCODER_FORMATS = ("int8", "bf16")

_PIECE_TOKENS = 1024

# Told the stage, how much of it is done, and how much it is.
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A model that is to be packed.

    Attributes:
        config: its sizes.
        shapes: of its tensors, by their names in `models`.
        read: gives one of them.
        describe: writes all files of its folder but the weights.
    """

    config: MedGemmaConfig | MedSiglipConfig
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Source]
    describe: Callable[[Path], None]

    def packed_bytes(self, decoder: str, encoder: str | None) -> int:
        """About how large its file becomes in some formats, never less."""
        return packed_model_bytes(self.shapes, decoder, encoder or "bf16")


@dataclass(frozen=True, kw_only=True)
class PackedModel:
    """What became of a model.

    Attributes:
        folder: where it is.
        family: "medgemma" or "medsiglip".
        decoder: format of the decoder's matrices; None where there is no decoder.
        encoder: format of the encoders' matrices; None where there are none.
        parameters: how many weights.
        file_bytes: of the packed weights.
        rounded: of a GGUF file, the matrices that could not keep their values exactly.
    """

    folder: str
    family: str
    decoder: str | None
    encoder: str | None
    parameters: int
    file_bytes: int
    rounded: tuple[str, ...] = ()


def quantize(
    name: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: str,
    encoder: str | None = None,
    calibration: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> PackedModel:
    """Pack a MedGemma or MedSigLIP for the native engine.

    Memory stays below a few gigabytes whatever the model's size: weights are mapped from their
    files and go through a few rows at a time. For int4 the model reads some text first, and each
    matrix is rounded so that what it makes of such inputs changes least.

    Args:
        name: as `osler.load` or `osler.load_encoder` takes it; a folder, or a hub id.
        out: a new folder, or one packed earlier, which is replaced once the new one is complete.
        to: "int4", "int8" or "bf16", for the decoder; "int8" or "bf16" for a MedSigLIP.
        encoder: "int8" or "bf16", for a MedGemma's vision tower; None for bf16 with bf16, and
            int8 with the rest.
        calibration: text for int4 to read, with `---` alone on the lines between unrelated parts;
            None for the one that comes with Osler.
        progress: called with "calibrating" or "packing", how far it is, and how far it will go.

    Raises:
        ModelNotFoundError: no model by that name.
        CheckpointError: a folder that does not hold the model that it says, an output folder that
            is not empty, or a full disk.
        PromptError: formats that do not go together.
    """
    folder, target = locate(name, "medgemma"), Path(out)
    if is_packed(folder):
        raise CheckpointError(f"{folder}: packed already; give the checkpoint that it was made of")
    native_library(f"quantize {os.fspath(name)}")
    config, stored = _open(folder)
    decoder, encoder = _formats(config, to, encoder)
    report = progress or (lambda stage, done, total: None)
    # A release's version may stand in its folder's name only.
    version = {}
    if isinstance(config, MedGemmaConfig):
        version = {"medgemma_version": config.medgemma_version}
    origin = Origin(
        config=config,
        shapes={key: tensor.shape for key, tensor in stored.items()},
        read=lambda key: stored[key].read(),
        describe=lambda staging: copy_descriptions(folder, staging, version),
    )
    check_out(target, origin.packed_bytes(to, encoder))
    moments: dict[str, Tensor] = {}
    if decoder == "int4":
        moments = _moments(folder, stored, calibration, report)
    packed = pack(
        origin, target, decoder=decoder, encoder=encoder, moments=moments, progress=report
    )
    return replace(packed, rounded=())  # as was asked for


def pack(
    origin: "Origin",
    target: Path,
    *,
    decoder: str | None,
    encoder: str | None,
    moments: Mapping[str, Tensor] | None = None,
    progress: Progress,
) -> PackedModel:
    """Write a packed folder.

    Args:
        origin: the model.
        target: passed `check_out`.
        decoder: format of the decoder's matrices, None where there is no decoder.
        encoder: format of the encoders' matrices, None where there are none.
        moments: of the matrices' inputs, for int4.
        progress: see `quantize`.

    Raises:
        CheckpointError: a weight is not a number, or the folder cannot be written.
    """
    native = native_library(str(target))
    config = origin.config
    family = "medsiglip" if isinstance(config, MedSiglipConfig) else "medgemma"
    weights = sum(math.prod(shape) for shape in origin.shapes.values())
    about: dict[str, str | None] = {"family": family, "made_by": f"osler {osler.__version__}"}
    with new_packed_folder(target) as staging:
        with write_packed(staging / PACKED_FILE, about) as writer:
            packer = ModelPacker(
                writer,
                Packer(native, native.pool()),
                origin.read,
                progress=lambda done: progress("packing", min(done, weights), weights),
            )
            if isinstance(config, MedGemmaConfig) and decoder is not None:
                decoder = packer.decoder(config.text_config, decoder, moments or {})
            if encoder is not None:
                encoder = packer.encoder(config, origin.shapes, encoder)
            about |= {"decoder": decoder, "encoder": encoder}
        file_bytes = (staging / PACKED_FILE).stat().st_size
        origin.describe(staging)
        if (staging / SOURCE_FILE).is_file():
            write_tables(staging)
    return PackedModel(
        folder=str(target),
        family=family,
        decoder=decoder,
        encoder=encoder,
        parameters=weights,
        file_bytes=file_bytes,
        rounded=tuple(packer.rounded),
    )


def calibration_ids(
    tokenizer: Tokenizer, calibration: str | os.PathLike[str] | None = None
) -> list[list[int]]:
    """The text that a model reads before it is rounded to int4.

    Args:
        tokenizer: the model's.
        calibration: as `quantize` takes it.

    Returns:
        Ids of unrelated pieces.

    Raises:
        UnreadableFileError: not a file of UTF-8 text.
    """
    pieces = []
    for part in _text(calibration).split("\n---\n"):
        ids = tokenizer.encode(part.strip(), add_bos=True)
        pieces += [
            ids[start : start + _PIECE_TOKENS] for start in range(0, len(ids), _PIECE_TOKENS)
        ]
    return pieces


def _open(folder: Path) -> tuple[MedGemmaConfig | MedSiglipConfig, dict[str, StoredTensor]]:
    if config_field(folder, "model_type") == "siglip":
        return open_medsiglip(folder)
    return open_medgemma(folder)


def _formats(
    config: MedGemmaConfig | MedSiglipConfig, to: str, encoder: str | None
) -> tuple[str | None, str | None]:
    """The formats of the decoder and of the encoders; None for what the model lacks."""
    if to not in FORMATS:
        raise PromptError(f"to: {to!r} is not one of {', '.join(FORMATS)}")
    if encoder not in (None, *ENCODER_FORMATS):
        raise PromptError(f"encoder: {encoder!r} is not one of {', '.join(ENCODER_FORMATS)}")
    if isinstance(config, MedSiglipConfig):
        if to not in ENCODER_FORMATS or encoder not in (None, to):
            raise PromptError(f"a MedSigLIP is packed to {' or '.join(ENCODER_FORMATS)}")
        return None, to
    if config.vision_config is None:
        return to, None
    return to, encoder or ("bf16" if to == "bf16" else "int8")


def _moments(
    folder: Path,
    stored: Mapping[str, StoredTensor],
    calibration: str | os.PathLike[str] | None,
    progress: Progress,
) -> dict[str, Tensor]:
    pieces = calibration_ids(Tokenizer.from_folder(folder), calibration)
    # float16 overflows in a Gemma 3, and a folder of several types names none.
    plain = {tensor.dtype for tensor in stored.values()} in ({"BF16"}, {"F32"})
    model = load_medgemma(folder, dtype=None if plain else torch.bfloat16)

    def watched() -> Iterator[list[int]]:
        for number, piece in enumerate(pieces):
            progress("calibrating", number, len(pieces))
            yield piece
        progress("calibrating", len(pieces), len(pieces))

    return input_moments(model, watched())


def _text(calibration: str | os.PathLike[str] | None) -> str:
    if calibration is None:
        return files(__package__).joinpath("calibration.txt").read_text(encoding="utf-8")
    path = Path(calibration)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except UnicodeDecodeError:
        raise UnreadableFileError(f"{path}: not UTF-8 text") from None
