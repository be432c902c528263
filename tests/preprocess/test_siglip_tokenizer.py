"""MedSigLIP's token ids against the reference."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from osler.errors import CheckpointError, PromptError
from osler.preprocess.siglip_tokenizer import SiglipTokenizer, canonical_text
from osler.tasks.locate import shipped_weights

TEXTS = [
    "",
    " ",
    "...",
    "A chest X-ray, with pneumonia.",
    "  spaces \t and\nlines  ",
    "NORMAL; abnormal! (both?) [x] {y} ~z",
    "12.5 cm, 3/4/2020",
    "ＦＵＬＬ width ﬁne Ⅳ ½ ™ é e\u0301",
    "腎臓 \N{LUNGS} zero\u200bwidth soft\xadhyphen no\xa0break",
    "İstanbul STRASSE ß",
    "… “quotes” – dashes",
    "▁hello ▁x▁",
    "<",
    "word " * 62,
    "word " * 63,
    "word " * 64,
    "a" * 500,
]


@pytest.fixture(scope="module", params=["nano", "tiny"])
def folder(request, siglip_folder) -> Path:
    return shipped_weights() / "medsiglip-nano" if request.param == "nano" else siglip_folder


@pytest.fixture(scope="module")
def tokenizer(folder) -> SiglipTokenizer:
    return SiglipTokenizer.from_folder(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return lambda text: tokenizer(text, padding="max_length", truncation=True)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_reference(tokenizer, theirs, text):
    ids = tokenizer.encode(text)
    assert ids == theirs(text)
    assert len(ids) == 64
    assert ids[-1] == 1


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_ids_of_any_text(tokenizer, theirs, text):
    assert tokenizer.encode(text) == theirs(text)


def test_control_pieces_in_a_text_are_text(tokenizer, theirs):
    # The reference ends the text there; SigLIP's own code removes the signs like any others.
    assert tokenizer.encode("hi </s> there") == tokenizer.encode("hi s there")
    assert tokenizer.encode("hi </s> there") != theirs("hi </s> there")


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(PromptError, match="surrogate"):
        tokenizer.encode("\udc00")


def test_count_tells_what_is_cut_off(tokenizer):
    end = tokenizer.encode("")[0]
    fits = [i for i in tokenizer.encode("clear lungs") if i != end]
    assert tokenizer.count("clear lungs") == len(fits) + 1
    long = "lung " * 200
    assert tokenizer.count(long) > tokenizer.length == len(tokenizer.encode(long))


def test_canonical_text_is_a_fixed_point():
    for text in TEXTS:
        assert canonical_text(canonical_text(text)) == canonical_text(text)


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_broken_model_is_named(siglip_folder, tmp_path, content):
    shutil.copytree(siglip_folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "spiece.model"
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    with pytest.raises(CheckpointError, match=r"spiece.model: not a sentencepiece model"):
        SiglipTokenizer.from_folder(tmp_path)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"spiece.model: no such file"):
        SiglipTokenizer.from_folder(tmp_path)
