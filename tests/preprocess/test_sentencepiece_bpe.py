"""A folder with `tokenizer.model` only: the layout of the released files, with image ids that are
neither at the end nor next to each other, and the soft token behind the model's own pieces."""

import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from osler.errors import CheckpointError
from osler.preprocess.tokenizer import Tokenizer
from osler.testing.tokenizers import TEXT

SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
IMAGES = ("<start_of_image>", "<end_of_image>")
SYMBOLS = ("<mask>", "[multimodal]", "<unused0>", *SPECIALS[4:], "\n", "\n\n", "▁▁", *IMAGES)
SOFT = "<image_soft_token>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in TEXT for line in text.splitlines()]),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        user_defined_symbols=list(SYMBOLS),
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        minloglevel=2,
    )
    added = [*SPECIALS[:4], *SYMBOLS]
    contents = dict(enumerate(added)) | {400: SOFT}
    names = {
        "added_tokens_decoder": {
            str(index): {
                "content": content,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": content in (*SPECIALS, "<mask>", *IMAGES, SOFT),
            }
            for index, content in contents.items()
        },
        "boi_token": IMAGES[0],
        "eoi_token": IMAGES[1],
        "image_token": SOFT,
        "tokenizer_class": "GemmaTokenizer",
        **{f"{piece[1:-1]}_token": piece for piece in SPECIALS[:4]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "config.json").write_text('{"model_type": "gemma3"}')
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder) -> Tokenizer:
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="module")
def sentences(folder) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


# Marks of its own would mean control to sentencepiece, and U+2581 a space to both.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁\0"))


@settings(max_examples=60, deadline=None)
@given(text=TEXTS | st.lists(st.sampled_from([*"aehilnrstu ,.\n57"])).map("".join))
def test_ids_are_those_of_sentencepiece(tokenizer, sentences, text):
    assert tokenizer.encode(text) == sentences.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *TEXT,
        "  two  spaces\n\n\n\n",
        f"<bos><start_of_turn>user\n\n\n{IMAGES[0]}{SOFT}{SOFT}{IMAGES[1]}\n\nWhat?<end_of_turn>\n",
        "\N{LUNGS} 腎",
    ],
)
def test_ids_are_those_of_the_reference(folder, tokenizer, text):
    theirs = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert tokenizer.vocab_size == len(theirs)


def test_saved_by_the_reference_it_is_the_same_tokenizer(folder, tokenizer, tmp_path):
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    saved = Tokenizer.from_folder(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    for text in TEXT:
        assert saved.encode(text) == tokenizer.encode(text)
    assert saved.id_of(saved.image_soft) == tokenizer.id_of(SOFT) == 400
    assert saved.control_pieces == tokenizer.control_pieces


def test_control_pieces_can_be_spelt(tokenizer):
    spelt = tokenizer.spell("<start_of_image>")
    assert tokenizer.id_of("<start_of_image>") not in spelt
    assert tokenizer.decode(spelt) == "<start_of_image>"


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_broken_model_is_named(folder, tmp_path, content):
    whole = (folder / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(whole[:5000] if content is None else content)
    with pytest.raises(CheckpointError, match=r"tokenizer.model: not a sentencepiece model"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("added", "reason"),
    [
        (None, "needs added_tokens_decoder"),
        ({"x": {"content": "<a>"}}, "broken"),
        ({"4": 3}, "broken"),
        ({"9999": {"content": "<image_soft_token>"}}, "cannot have id 9999"),
    ],
)
def test_added_tokens_must_fit(folder, tmp_path, added, reason):
    (tmp_path / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(CheckpointError, match=reason):
        Tokenizer.from_folder(tmp_path)
