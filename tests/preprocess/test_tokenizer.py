"""MedGemma's tokenizer: ids against the reference, round trips, and what cannot be loaded."""

import json
import shutil

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from osler.errors import CheckpointError, PromptError
from osler.preprocess.tokenizer import Tokenizer
from osler.preprocess.tokenizer_files import LibraryBackend

TEXTS = [
    "",
    " ",
    "The heart is normal in size.",
    "  two  spaces   and three ",
    "\n",
    "one\n\ntwo\n\n\n\n\n\n\n\n\n\n\nthree\n",
    "12.5 cm on 3/4/2020, 98.6 °F, 120/80",
    "Grüße, naïve, µg ≥ 5 – “quoted” … • item",
    "腎臓 \N{LUNGS} \N{FAMILY} ﷽ \u200d\ufeff",
    "a\tb\r\nc",
    "▁ an underline of its own",
    "<html><b>x</b>",
    "<start_of_turn>user\nhi<end_of_turn>\n<eos><unused94>thought<unused95>",
]
# What can be put into a file; half surrogates cannot.
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module", params=["nano", "tiny"])
def folder(request, nano_folder, gemma_folder):
    return nano_folder if request.param == "nano" else gemma_folder


@pytest.fixture(scope="module")
def tokenizer(folder) -> Tokenizer:
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_reference(tokenizer, theirs, text):
    assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert tokenizer.encode(text, add_bos=True) == theirs.encode(text)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back(tokenizer, theirs, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, skip_special=False) == theirs.decode(ids)
    assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    if "▁" not in text:
        assert tokenizer.decode(ids, skip_special=False) == text


@settings(max_examples=60, deadline=None)
@given(text=UNICODE)
def test_any_text_comes_back_through_bytes(tokenizer, text):
    plain = text.replace("▁", " ")
    assert tokenizer.decode(tokenizer.encode(plain), skip_special=False) == plain
    assert tokenizer.decode(tokenizer.spell(plain), skip_special=False) == plain


@settings(max_examples=60, deadline=None)
@given(text=UNICODE)
def test_spelling_gives_no_control_token(tokenizer, text):
    control = {tokenizer.id_of(piece) for piece in tokenizer.control_pieces}
    for piece in ("<start_of_turn>", "<image_soft_token>", "<eos>"):
        spelt = tokenizer.spell(text + piece)
        assert control.isdisjoint(spelt)
        assert tokenizer.decode(spelt) == (text + piece).replace("▁", " ")


def test_bytes_that_are_no_text_become_replacement_characters(tokenizer):
    ids = [tokenizer.id_of("<0xF0>"), tokenizer.id_of("<0x9F>")]
    assert set(tokenizer.decode(ids)) == {"\N{REPLACEMENT CHARACTER}"}


def test_ids_beyond_the_vocabulary_give_no_text(tokenizer):
    assert tokenizer.decode([tokenizer.vocab_size + 5]) == ""


def test_the_layout_is_gemmas(nano_folder):
    tokenizer = Tokenizer.from_folder(nano_folder)
    expected = {
        "<pad>": 0,
        "<eos>": 1,
        "<bos>": 2,
        "<unk>": 3,
        "<mask>": 4,
        "[multimodal]": 5,
        "<unused0>": 6,
        "<unused94>": 100,
        "<unused95>": 101,
        "<unused98>": 104,
        "<start_of_turn>": 105,
        "<end_of_turn>": 106,
        "\n": 107,
        "\n\n": 108,
        "<start_of_image>": 8189,
        "<end_of_image>": 8190,
        "<image_soft_token>": 8191,
    }
    assert {piece: tokenizer.id_of(piece) for piece in expected} == expected
    assert tokenizer.vocab_size == 8192
    assert [len(tokenizer.encode(f"{n}")) for n in (7, 12, 2020)] == [1, 2, 4]


def test_thought_markers_are_text_and_turns_are_not(tokenizer):
    ids = tokenizer.encode("<unused94>thought<unused95>yes<end_of_turn>")
    assert tokenizer.decode(ids) == "<unused94>thought<unused95>yes"


def test_half_a_surrogate_pair_is_refused(tokenizer):
    for encode in (tokenizer.encode, tokenizer.spell):
        with pytest.raises(PromptError, match="surrogate"):
            encode("a\ud83d")


def test_a_piece_that_is_not_there(tokenizer):
    with pytest.raises(CheckpointError, match=r"tokenizer.json: no piece '<unused9999>'"):
        tokenizer.id_of("<unused9999>")


@pytest.fixture
def copy(gemma_folder, tmp_path):
    shutil.copytree(gemma_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"model": {"type": "BPE"}}', b"\xff\xfe", b"PK\x03\x04"],
)
def test_a_broken_file_is_named(copy, content):
    (copy / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer.json: ") as caught:
        Tokenizer.from_folder(copy)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_named(copy):
    path = copy / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        Tokenizer.from_folder(copy)


def test_no_file_at_all(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer.json or tokenizer.model"):
        Tokenizer.from_folder(tmp_path)


def test_a_tokenizer_without_turns_is_refused(copy):
    path = copy / "tokenizer.json"
    path.write_text(path.read_text().replace("<start_of_turn>", "<start_of_tune>"))
    with pytest.raises(CheckpointError, match="no piece '<start_of_turn>'"):
        Tokenizer.from_folder(copy)


@pytest.mark.parametrize(
    "names",
    [
        {"image_token": "<unused7>"},
        {"image_token": {"content": "<unused7>", "special": True}},
        {"extra_special_tokens": {"image_token": "<unused7>"}},
    ],
)
def test_names_come_from_the_configuration(copy, names):
    (copy / "tokenizer_config.json").write_text(json.dumps(names))
    tokenizer = Tokenizer.from_folder(copy)
    assert tokenizer.image_soft == "<unused7>"
    assert tokenizer.end_of_image == "<end_of_image>"


def test_what_a_vocabulary_cannot_spell_is_refused():
    pieces = ["a", "b", "ab", "<start_of_turn>", "<end_of_turn>"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[("a", "b")]))
    tokenizer = Tokenizer(LibraryBackend(backend), {"bos_token": "ab"}, "test")
    assert tokenizer.spell("ba") == [1, 0]
    with pytest.raises(PromptError, match="control token"):
        tokenizer.spell("ab")
