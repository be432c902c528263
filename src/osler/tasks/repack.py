"""Makes a packed folder of GGUF files, whose weights stay what they are."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from osler.errors import CheckpointError, ModelNotFoundError, PromptError
from osler.models.config import MedGemmaConfig
from osler.models.hf_config import medgemma_json
from osler.native.gguf import GgufFile
from osler.native.gguf_model import GgufModel
from osler.preprocess.sentencepiece_bpe import scored_bpe
from osler.tasks.checkpoint_extras import PROCESSOR_FILES
from osler.tasks.packed_folder import check_out, native_library
from osler.tasks.quantize import ENCODER_FORMATS, Origin, PackedModel, Progress, pack

TOKENIZER_FILE = "tokenizer.json"
_TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer.model")

# ggml's kinds of pieces.
_CONTROL, _USER_DEFINED = 3, 4


def repack(
    text: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    mmproj: str | os.PathLike[str] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    encoder: str | None = None,
    progress: Progress | None = None,
) -> PackedModel:
    """Pack a Gemma 3 from GGUF files for the native engine.

    Q4_0 and Q8_0 keep their values; F16, BF16 and F32 become bf16, which the original was. Q6_K,
    in which some files have the embedding, becomes int8. `rounded` names what was not exact.

    Args:
        text: the file of the decoder.
        out: as `quantize` takes it.
        mmproj: the file of the vision tower.
        tokenizer: a checkpoint's folder, whose tokenizer is taken instead of the file's own.
        encoder: "int8" to round the vision tower to; None to leave it as it is.
        progress: as `quantize` takes it.

    Raises:
        ModelNotFoundError: no such file.
        CheckpointError: a file that is damaged, of another model or of a type that is not read; no
            tokenizer; an output folder that is not empty, or a full disk.
        PromptError: another format.
    """
    if encoder not in (None, *ENCODER_FORMATS):
        raise PromptError(f"encoder: {encoder!r} is not one of {', '.join(ENCODER_FORMATS)}")
    for path in (text, mmproj):
        if path is not None and not Path(path).is_file():
            raise ModelNotFoundError(f"{path}: no such file")
    target = Path(out)
    native_library(f"quantize {os.fspath(text)}")
    model = GgufModel(Path(text), None if mmproj is None else Path(mmproj))
    folder = None if tokenizer is None else Path(tokenizer)
    if folder is not None and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(f"{folder}: no tokenizer.json or tokenizer.model in this folder")
    own = _tokenizer(model.text) if folder is None else None

    def describe(staging: Path) -> None:
        _write_descriptions(staging, model.config, own)
        if folder is not None:
            for name in PROCESSOR_FILES:
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, staging / name)

    origin = Origin(config=model.config, shapes=model.shapes, read=model.read, describe=describe)
    check_out(target, origin.packed_bytes("bf16", encoder))
    return pack(
        origin,
        target,
        decoder="bf16",
        encoder=None if mmproj is None else encoder or "bf16",
        progress=progress or (lambda stage, done, total: None),
    )


def _tokenizer(file: GgufFile) -> tokenizers.Tokenizer:
    """The file's own tokenizer.

    Raises:
        CheckpointError: it has none, or one of another kind.
    """
    prefix = "tokenizer.ggml."
    pieces, scores, kinds = (
        file.metadata.get(prefix + name) for name in ("tokens", "scores", "token_type")
    )
    whole = (
        file.metadata.get(prefix + "model") == "llama"
        and isinstance(pieces, list)
        and getattr(scores, "size", 0) == len(pieces)
        and getattr(kinds, "size", 0) == len(pieces)
    )
    if not whole or pieces is None or scores is None or kinds is None:
        raise CheckpointError(
            f"{file.path}: no tokenizer of Gemma's kind; give a checkpoint's folder as --tokenizer"
        )
    try:
        made = scored_bpe(pieces, scores.tolist())
        made.add_tokens(
            [
                AddedToken(piece, special=kind == _CONTROL, normalized=False)
                for piece, kind in zip(pieces, kinds.tolist(), strict=True)
                # Runs of blanks are user-defined as well; merges make them.
                if kind == _CONTROL or (kind == _USER_DEFINED and piece.strip("▁").strip())
            ]
        )
    except Exception as error:  # the tokenizers library raises this class itself
        raise CheckpointError(f"{file.path}: a broken tokenizer ({error})") from error
    return made


def _write_descriptions(
    folder: Path, config: MedGemmaConfig, tokenizer: tokenizers.Tokenizer | None
) -> None:
    contents: dict[str, dict[str, Any]] = dict(medgemma_json(config, "bfloat16"))
    if config.vision_config is not None:
        side = config.vision_config.image_size
        contents["preprocessor_config.json"] = {
            "image_processor_type": "Gemma3ImageProcessor",
            "processor_class": "Gemma3Processor",
            "image_seq_length": config.mm_tokens_per_image,
            "size": {"height": side, "width": side},
            "resample": 2,
            "rescale_factor": 1 / 255,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save(str(folder / TOKENIZER_FILE))
