"""Which texts count as known."""

import gzip
import json
from pathlib import Path

import pytest

from osler.errors import UnreadableFileError
from osler.training.overlap import KnownTexts, Overlap, benchmark_texts

CASE = (
    "A 54-year-old man comes to the clinic with three weeks of cough, night sweats and weight loss "
    "after a journey to a mining town, and his chest radiograph shows a cavity in the right apex."
)
SHORT = "Which nerve supplies the muscles of facial expression?"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (CASE, "exact"),
        (CASE.upper().replace(",", " ;"), "exact"),
        (SHORT.removesuffix("?"), "exact"),
        (f"Yesterday {CASE.split('clinic')[1]}", "passage"),
        (f"Tell me, doctor: {CASE} What is it?", "passage"),
        ("Which nerve supplies the many muscles of facial expression?", None),
        ("Doctor, which nerve supplies the muscles of facial expression?", "near"),
        ("Which nerve supplies the muscles of the tongue?", None),
        ("Which artery runs behind the muscles of facial expression in most people?", None),
        ("A 54-year-old woman comes to the clinic with a rash.", None),
        ("", None),
    ],
)
def test_how_a_text_is_known(text: str, kind: str | None) -> None:
    found = KnownTexts([CASE, SHORT]).find(text)
    assert (found.kind if found else None) == kind


def test_twelve_words_in_a_row_may_be_shared_and_thirteen_may_not() -> None:
    words = CASE.replace("-", " ").split()
    others = " ".join(f"word{i}" for i in range(60))
    known = KnownTexts([CASE])
    assert known.find(f"{' '.join(words[:12])} {others}") is None
    assert known.find(f"{' '.join(words[:13])} {others}") is not None


def test_a_turn_of_phrase_may_be_repeated() -> None:
    phrase = "which of the following is the most appropriate next step in the management of this"
    texts = [f"Number {i} has {'pain ' * i}: {phrase} case?" for i in range(30)]
    assert KnownTexts(texts[:3]).find(f"A boy fell off his bicycle, {phrase} boy?") is not None
    assert KnownTexts(texts).find(f"A boy fell off his bicycle, {phrase} boy?") is None
    assert KnownTexts(texts).find(texts[7]) == Overlap("exact")


def test_what_is_added_is_known() -> None:
    known = KnownTexts()
    assert known.find(SHORT) is None
    known.add(SHORT)
    assert known.find(SHORT) is not None
    assert len(known) == 1


def test_benchmarks_are_read_whatever_their_fields(tmp_path: Path) -> None:
    row = {"question": SHORT, "options": {"A": CASE, "B": "the facial nerve"}, "more": [[CASE]]}
    with gzip.open(tmp_path / "one.jsonl.gz", "wt") as lines:
        lines.write(json.dumps(row) + "\n")
    (tmp_path / "two.jsonl").write_text(json.dumps({"text": SHORT + " Why?", "n": 3}) + "\n")
    assert list(benchmark_texts(tmp_path)) == [SHORT, CASE, CASE, SHORT + " Why?"]


@pytest.mark.parametrize("content", [None, b"{not json}\n", b"\x1f\x8bhalf"])
def test_benchmarks_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        name = "bad.jsonl.gz" if content.startswith(b"\x1f") else "bad.jsonl"
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFileError, match=str(tmp_path)):
        list(benchmark_texts(tmp_path))
