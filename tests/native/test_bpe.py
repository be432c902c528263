"""The tokenizer on mapped tables: the ids and texts of the `tokenizers` library, and no others."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from osler.native.bpe import Bpe, open_bpe
from osler.native.bpe_table import SOURCE_FILE, TABLE_FILE, make_tables, read_tables, write_tables
from osler.native.library import Library
from osler.preprocess.tokenizer import Tokenizer
from osler.preprocess.tokenizer_files import LibraryBackend
from osler.tasks.locate import shipped_weights

TEXTS = [
    "",
    " ",
    "The heart is normal in size.",
    "  two  spaces   and three ",
    "one\n\ntwo" + 40 * "\n" + "three\n",
    "12.5 cm on 3/4/2020, 98.6 °F, 120/80\r\n\ta\tb",
    "Grüße, naïve, µg ≥ 5 – “quoted” … • item",
    "Пневмония слева. Πνευμονία. التهاب رئوي. निमोनिया. 肺炎です。폐렴",
    "腎臓 \N{LUNGS} \N{FAMILY} ﷽ \u200d\ufeff\x00\x7f",
    "▁ an ▁▁ underline of its own",
    "<html><b>x</b> <0x41><0xff><<bos>",
    "<start_of_turn>user\nhi<end_of_turn>\n<eos><unused94>thought<unused95><unused9",
    500 * "pneumothorax effusion " + 3000 * "a",
]
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    shutil.copy(shipped_weights() / "medgemma-nano" / SOURCE_FILE, folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path, native: Library) -> Bpe:
    found = open_bpe(folder, native)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def theirs(folder: Path) -> LibraryBackend:
    return LibraryBackend(tokenizers.Tokenizer.from_file(str(folder / SOURCE_FILE)))


def assert_same(ours: Bpe, theirs: LibraryBackend, text: str) -> None:
    ids = theirs.encode(text)
    assert ours.encode(text) == ids
    assert ours.spell(text) == theirs.spell(text)
    for skip in (False, True):
        assert ours.decode(ids, skip_special=skip) == theirs.decode(ids, skip_special=skip)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_ids_and_texts_are_those_of_the_library(ours, theirs, text: str) -> None:
    assert_same(ours, theirs, text)


@given(UNICODE)
@settings(deadline=None)
def test_any_text(ours, theirs, text: str) -> None:
    assert_same(ours, theirs, text)


def test_texts_of_pieces(ours, theirs) -> None:
    """Pieces side by side, which meet in ways that no text has."""
    source = random.Random(0)
    pieces = list(json.loads(theirs.to_json())["model"]["vocab"])
    for _ in range(200):
        assert_same(ours, theirs, "".join(source.choices(pieces, k=source.randrange(20))))


def test_any_ids_decode_alike(ours, theirs) -> None:
    source = random.Random(1)
    spelt = [ours.id_of(f"<0x{byte:02X}>") for byte in range(256)]
    for _ in range(300):
        ids = [
            source.choice([source.randrange(ours.size + 9), *source.choices(spelt, k=2), 2])
            for _ in range(source.randrange(12))
        ]
        for skip in (False, True):
            assert ours.decode(ids, skip_special=skip) == theirs.decode(ids, skip_special=skip)
    assert ours.decode([-1], skip_special=False) == ""


def test_pieces_are_found(ours, theirs) -> None:
    assert ours.size == theirs.size
    assert ours.special == theirs.special
    for token in (0, 1, 105, 300, ours.size - 1):
        piece = theirs._tokenizer.id_to_token(token)
        assert ours.id_of(piece) == token
        assert ours.id_of(piece + "\U0010ffff") is None
    assert ours.id_of("") is None
    assert json.loads(ours.to_json()) == json.loads(theirs.to_json())


def test_both_serve_the_tokenizer_alike(folder: Path, ours) -> None:
    packed, plain = Tokenizer.from_folder(folder, ours), Tokenizer.from_folder(folder)
    assert packed.control_pieces == plain.control_pieces
    assert packed.encode(TEXTS[2], add_bos=True) == plain.encode(TEXTS[2], add_bos=True)


def changed(folder: Path, target: Path, change) -> Path:
    values = json.loads((folder / SOURCE_FILE).read_bytes())
    change(values)
    (target / SOURCE_FILE).write_text(json.dumps(values), encoding="utf-8")
    return target


def test_merges_written_as_texts_and_twice(folder: Path, tmp_path: Path, native, theirs) -> None:
    def change(values: dict[str, Any]) -> None:
        merges = values["model"]["merges"]
        values["model"]["merges"] = [" ".join(pair) for pair in [*merges, merges[0]]]

    found = open_bpe(changed(folder, tmp_path, change), native)
    library = LibraryBackend(tokenizers.Tokenizer.from_file(str(tmp_path / SOURCE_FILE)))
    assert found is not None
    assert library.encode("at the inn") != theirs.encode("at the inn")  # the last is the one
    for text in (*TEXTS, "at the inn, nothing"):
        assert_same(found, library, text)


def test_tables_of_another_file_are_made_anew(folder: Path, tmp_path: Path, native) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_tables(tmp_path)

    def change(values: dict[str, Any]) -> None:
        values["model"]["merges"] = []

    changed(folder, tmp_path, change)
    assert read_tables(tmp_path) is None
    found = open_bpe(tmp_path, native)
    assert found is not None
    assert len(found.encode("heart")) == 5


@pytest.mark.parametrize("place", [0, 9, 40, -1, -100_000])
def test_damaged_tables_are_made_anew(folder: Path, tmp_path: Path, native, place: int) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_tables(tmp_path)
    data = bytearray((tmp_path / TABLE_FILE).read_bytes())
    data[place] ^= 0x55
    for damaged in (data, data[: len(data) // 2], b""):
        (tmp_path / TABLE_FILE).write_bytes(damaged)
        assert read_tables(tmp_path) is None
    assert open_bpe(tmp_path, native) is not None
    assert read_tables(tmp_path) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == [SOURCE_FILE, TABLE_FILE]


def test_a_folder_that_is_not_to_be_written_to(folder: Path, tmp_path: Path, native) -> None:
    shutil.copy(folder / SOURCE_FILE, tmp_path)
    (tmp_path / TABLE_FILE).mkdir()  # in the way, and root writes everywhere
    assert open_bpe(tmp_path, native) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [SOURCE_FILE, TABLE_FILE]
    assert open_bpe(tmp_path / "nowhere", native) is None


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("model", "type"), "WordPiece"),
        (("model", "byte_fallback"), False),
        (("model", "ignore_merges"), True),
        (("model", "dropout"), 0.1),
        (("normalizer",), None),
        (("normalizer",), {"type": "NFKC"}),
        (("pre_tokenizer",), {"type": "Whitespace"}),
        (("decoder",), None),
        (("added_tokens", 0, "lstrip"), True),
        (("added_tokens", 0, "normalized"), True),
        (("added_tokens", 0, "content"), "<other>"),
        (("model", "vocab", "<0x41>"), 999_999),
        (("model", "merges", 0), ["no such", "piece"]),
    ],
    ids=str,
)
def test_another_kind_of_tokenizer_has_no_tables(folder: Path, place, value) -> None:
    values = json.loads((folder / SOURCE_FILE).read_bytes())
    assert make_tables(json.dumps(values).encode()) is not None
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert make_tables(json.dumps(values).encode()) is None


@pytest.mark.parametrize("source", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_what_is_no_tokenizer_has_no_tables(source: bytes) -> None:
    assert make_tables(source) is None
