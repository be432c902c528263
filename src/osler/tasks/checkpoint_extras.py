"""What a checkpoint folder holds beside its weights and sizes: a processor's files and a notice.

A checkpoint that wants more said about it than the rest carries the sentence in its `config.json`,
so that it goes wherever the weights go; `transformers` keeps the field and otherwise ignores it.
"""

import json
import shutil
from pathlib import Path

from osler.models.hf_config import CONFIG_FILE
from osler.tasks.answer import NOT_A_DEVICE

NOTICE_FIELD = "osler_notice"
DEMONSTRATION = "Written by a nano model: a demonstration, often wrong."
PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
)


def config_field(folder: Path, field: str) -> object:
    """One field of `config.json`.

    Returns:
        Its value; None where the field or a readable file is missing, which is for the model's own
        reader to report.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return values.get(field) if isinstance(values, dict) else None


def notice(folder: Path) -> str:
    """What every draft says about the model that wrote it: one line."""
    own = config_field(folder, NOTICE_FIELD)
    return f"{own} {NOT_A_DEVICE}" if isinstance(own, str) else NOT_A_DEVICE


def write_notice(folder: Path, own: str) -> None:
    """Give a checkpoint a sentence of its own."""
    path = folder / CONFIG_FILE
    values = json.loads(path.read_bytes()) | {NOTICE_FIELD: own}
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def carry_over(source: Path, target: Path, notice: str) -> None:
    """Complete a folder of newly saved weights with what their old folder held beside them."""
    for name in PROCESSOR_FILES:
        if (source / name).is_file() and not (target / name).exists():
            shutil.copyfile(source / name, target / name)
    if own := notice.removesuffix(NOT_A_DEVICE).strip():
        write_notice(target, own)
