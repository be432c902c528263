"""Trains the nano tokenizers on the data pack and writes them in the form of the released ones.

    python -m osler.training.tokenizers --data PACK --out weights

MedGemma's is byte-pair encoding with byte fallback in Gemma's layout (special tokens at the low end
under their released ids, the image tokens at the top). MedSigLIP's is a sentencepiece unigram model
over lower-cased text without punctuation. Only training splits are read, and nothing of `bench/`.
"""

import argparse
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece
from PIL.Image import Resampling
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from osler.ingest.image_pack import read_image_pack
from osler.ingest.text_pack import read_text_pack
from osler.preprocess.siglip_tokenizer import canonical_text

# Gemma's ids: pad 0, eos 1, bos 2, unk 3, mask 4, [multimodal] 5, <unused0> 6 ... <unused98> 104,
# <start_of_turn> 105, <end_of_turn> 106; then runs of newlines and the 256 bytes.
CONTROL_PIECES = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
TURN_PIECES = ("<start_of_turn>", "<end_of_turn>")
PLAIN_ADDED_PIECES = ("[multimodal]", *(f"<unused{i}>" for i in range(99)))
NEWLINE_RUNS = tuple("\n" * n for n in range(1, 9))
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
IMAGE_PIECES = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")

# What a merge may join while training: a word with the space before it, or a run of punctuation.
# Digits stay alone, so that numbers are read digit by digit.
WORDS = Regex(r"▁?\p{L}+|\p{N}|▁?[^\p{L}\p{N}▁]+|▁+")

# Fields of the pack's records that hold prose.
PROSE_FIELDS = frozenset(
    "answer contexts diagnosis dialogue differential discussion exam findings history impression"
    " indication labels long_answer note question question_a question_b section_text text title"
    " topic topic_discussion treatment".split()
)

# Words of instructions and of short answers, which the pack's prose seldom has together. They are
# repeated so that each becomes one piece.
INSTRUCTIONS = (
    "user\nDescribe this image. Describe this X-ray. What modality? Which body part is shown?",
    "model\nThis is a chest X-ray, a radiograph of the chest. Modality: radiograph, CT, MRI.",
    "user\nIs there pneumonia? Answer yes or no. Is this normal or abnormal? What do you see?",
    "model\nYes, there are signs of pneumonia, bacterial or viral. No, the lungs appear normal.",
    "user\nYou are a medical assistant. Write the findings and the impression of this study.",
    "model\nFindings: the heart is normal in size. Impression: no acute abnormality.",
    "A CT slice of the chest with signs of COVID-19, or without COVID-19.",
    "An MRI slice of the brain with a glioma, a meningioma, a pituitary tumor, or no tumor.",
    "An ultrasound image of the breast with a benign or malignant mass, or a normal breast.",
    "A fundus photograph of the left or right eye: diabetic retinopathy, glaucoma, cataract,",
    "age-related macular degeneration, hypertensive retinopathy, pathological myopia, drusen.",
    "A dermatoscopic photograph of a skin lesion: melanoma, melanocytic nevus, benign keratosis,",
    "basal cell carcinoma, actinic keratosis, vascular lesion, dermatofibroma.",
    "A histology tile of lung tissue: adenocarcinoma, squamous cell carcinoma, benign tissue.",
    "Question: Answer: Options: A B C D (A) (B) (C) (D) 0 1 2 3 4 5 6 7 8 9 cm mm % 3.5 120/80",
)
INSTRUCTION_REPEATS = 2000

# What `osler.preprocess.chat` writes, for those who read the folder with `transformers`.
CHAT_TEMPLATE = """\
{{ bos_token }}
{%- set folded = '' -%}
{%- set turns = messages -%}
{%- if turns[0].role == 'system' -%}
    {%- set said = turns[0].content -%}
    {%- set folded = (said if said is string else said[0].text) ~ '\\n\\n' -%}
    {%- set turns = turns[1:] -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- set due = 'model' if loop.index0 % 2 else 'user' -%}
    {%- if turn.role != due and (turn.role, due) != ('assistant', 'model') -%}
        {{ raise_exception('user and assistant must take turns, the user first') }}
    {%- endif -%}
    {{ '<start_of_turn>' ~ due ~ '\\n' ~ (folded if loop.first else '') }}
    {%- if turn.content is string -%}
        {{ turn.content | trim }}
    {%- else -%}
        {%- for item in turn.content -%}
            {{ '<start_of_image>' if item.type == 'image' else item.text | trim }}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""


def train_gemma_tokenizer(
    texts: Iterable[str],
    folder: Path,
    vocab_size: int = 8192,
    *,
    side_px: int = 224,
    image_tokens: int = 49,
) -> None:
    """Train a tokenizer of Gemma's form and write it with its processor's files.

    Args:
        texts: what to learn from.
        folder: where to write; made if it is not there.
        vocab_size: number of ids, all of which exist; the image tokens take the last three.
        side_px: of the square that the model sees.
        image_tokens: soft tokens of one image.

    Raises:
        ValueError: the texts do not give as many pieces as `vocab_size` asks for.
    """
    low = (*CONTROL_PIECES, *PLAIN_ADDED_PIECES, *TURN_PIECES, *NEWLINE_RUNS, *BYTE_PIECES)
    learnt, merges = _train_bpe(texts, vocab_size - len(low) - len(IMAGE_PIECES))
    pieces = (*low, *learnt, *IMAGE_PIECES)
    if len(pieces) != vocab_size:
        raise ValueError(f"the texts give {len(pieces)} pieces, not {vocab_size}")

    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    specials = (*CONTROL_PIECES, *TURN_PIECES, *IMAGE_PIECES)
    tokenizer.add_special_tokens([AddedToken(p, normalized=False, special=True) for p in specials])
    plain = (*PLAIN_ADDED_PIECES, *NEWLINE_RUNS)
    tokenizer.add_tokens([AddedToken(p, normalized=False, special=False) for p in plain])

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    names = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk", "mask")}
    images = dict(zip(("boi_token", "eoi_token", "image_token"), IMAGE_PIECES, strict=True))
    _write_json(folder / "special_tokens_map.json", names | images)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            **names,
            **images,
            "extra_special_tokens": images,
            "model_max_length": 8192,
            "padding_side": "left",
            "processor_class": "Gemma3Processor",
            "spaces_between_special_tokens": False,
            "tokenizer_class": "GemmaTokenizer",
        },
    )
    _write_json(
        folder / "preprocessor_config.json",
        _image_settings("Gemma3", side_px)
        | {
            "do_pan_and_scan": None,
            "image_seq_length": image_tokens,
            "pan_and_scan_max_num_crops": None,
            "pan_and_scan_min_crop_size": None,
            "pan_and_scan_min_ratio_to_activate": None,
        },
    )
    _write_json(
        folder / "processor_config.json",
        {"image_seq_length": image_tokens, "processor_class": "Gemma3Processor"},
    )


def train_siglip_tokenizer(
    texts: Iterable[str], folder: Path, vocab_size: int = 8192, *, side_px: int = 224
) -> None:
    """Train a tokenizer of SigLIP's form and write it with its processor's files.

    Args:
        texts: what to learn from.
        folder: where to write; made if it is not there.
        vocab_size: number of pieces, with `<pad>` 0, `</s>` 1 and `<unk>` 2.
        side_px: of the square that the model sees.

    Raises:
        RuntimeError: the texts give fewer pieces than `vocab_size` asks for.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(
            sentence
            for text in texts
            for line in text.splitlines()
            if (sentence := canonical_text(line))
        ),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        split_digits=True,
        max_sentence_length=1 << 20,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    names = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    _write_json(folder / "special_tokens_map.json", names)
    _write_json(
        folder / "tokenizer_config.json",
        {
            **names,
            "do_lower_case": True,
            "model_input_names": ["input_ids"],
            "model_max_length": 64,
            "processor_class": "SiglipProcessor",
            "sp_model_kwargs": {},
            "tokenizer_class": "SiglipTokenizer",
        },
    )
    _write_json(folder / "preprocessor_config.json", _image_settings("Siglip", side_px))
    _write_json(folder / "processor_config.json", {"processor_class": "SiglipProcessor"})


def pack_texts(pack: Path) -> Iterator[str]:
    """The prose of the pack's training splits, and the instructions' words.

    Args:
        pack: the data pack's folder.
    """
    for path in sorted((pack / "text").glob("*.jsonl.gz")):
        for row in read_text_pack(pack, path.name.removesuffix(".jsonl.gz"), "train"):
            yield from _prose(row)
    for image in read_image_pack(pack, "train"):
        yield from _prose({"labels": image.labels, "text": image.text})
    yield from INSTRUCTIONS * INSTRUCTION_REPEATS


def _prose(value: Any, field: str = "text") -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _prose(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in PROSE_FIELDS or field == "labels":
                yield from _prose(item, name)


def _train_bpe(texts: Iterable[str], size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces in the order of their learning, characters first, and the merges that make them."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    # Newlines have their pieces already, and rare characters are spelt in bytes.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Split(WORDS, "isolated")]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=159, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return pieces, [(left, right) for left, right in model["merges"]]


def _image_settings(family: str, side_px: int) -> dict[str, Any]:
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": f"{family}ImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": f"{family}Processor",
        "resample": int(Resampling.BILINEAR),
        "rescale_factor": 1 / 255,
        "size": {"height": side_px, "width": side_px},
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Train both tokenizers from the command line."""
    parser = argparse.ArgumentParser(prog="python -m osler.training.tokenizers")
    parser.add_argument("--data", type=Path, required=True, help="the data pack's folder")
    parser.add_argument("--out", type=Path, default=Path("weights"))
    arguments = parser.parse_args()
    texts = list(pack_texts(arguments.data))
    train_gemma_tokenizer(texts, arguments.out / "medgemma-nano")
    train_siglip_tokenizer(texts, arguments.out / "medsiglip-nano")


if __name__ == "__main__":
    main()
