"""Users' data: what is read, and that every bad row is named by its line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import uid

from osler.errors import UnreadableFileError
from osler.testing.dicom import make_dicom
from osler.training.finetune.data import read_examples

Write = Callable[[str], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures."""
    (tmp_path / "scans").mkdir()
    for name in ("1.png", "2.png"):
        Picture.new("RGB", (8, 8)).save(tmp_path / "scans" / name)
    return tmp_path


@pytest.fixture
def table(folder: Path) -> Write:
    def write(text: str) -> Path:
        (folder / "rows.csv").write_text(text, encoding="utf-8")
        return folder / "rows.csv"

    return write


@pytest.fixture
def chats(folder: Path) -> Write:
    def write(text: str) -> Path:
        (folder / "rows.jsonl").write_text(text, encoding="utf-8")
        return folder / "rows.jsonl"

    return write


def refused(path: Path, **options: object) -> str:
    """The message that a file is refused with."""
    with pytest.raises(UnreadableFileError) as refusal:
        read_examples(path, **options)  # type: ignore[arg-type]
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def chat(*contents: object) -> str:
    roles = ("user", "assistant") * len(contents)
    return json.dumps(
        {"messages": [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]}
    )


def test_images_with_labels(table: Write, folder: Path) -> None:
    path = table("id,Image,Label\n7,scans/1.png,cyst\n8, scans/2.png ,mass\n\n9,scans/1.png,cyst\n")
    for named in (path, folder):
        examples = read_examples(named)
        assert examples.labels == ("cyst", "mass")
        assert [row.line for row in examples.rows] == [2, 3, 5]
        assert [row.label for row in examples.rows] == ["cyst", "mass", "cyst"]
        user, answer = examples.rows[1].messages
        assert user["content"] == [
            {"type": "image", "image": folder / "scans" / "2.png"},
            {"type": "text", "text": "Which of these does the image show: cyst, mass?"},
        ]
        assert answer == {"role": "assistant", "content": "mass"}
        assert examples.rows[1].images == (folder / "scans" / "2.png",)


def test_a_question_and_labels_of_ones_own(table: Write) -> None:
    path = table("image,label\nscans/1.png,b\nscans/2.png,a\n")
    examples = read_examples(path, question="Which?", labels=["b", "a", "c"])
    assert examples.labels == ("b", "a", "c")
    assert examples.rows[0].messages[0]["content"][1]["text"] == "Which?"
    assert ", line 3: a label that the training data do not have" in refused(path, labels=["b"])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_questions_with_answers(table: Write, delimiter: str) -> None:
    rows = [["image", "question", "answer"], ["scans/1.png", "What?", '"A cyst,\nsmall."']]
    path = table("\ufeff" + "".join(delimiter.join(row) + "\r\n" for row in [*rows, rows[1]]))
    examples = read_examples(path)
    assert [row.line for row in examples.rows] == [2, 4]
    assert examples.labels == ()
    user, answer = examples.rows[0].messages
    assert user["content"][1]["text"] == "What?"
    assert answer["content"] == "A cyst,\nsmall."


def test_questions_without_images(table: Write) -> None:
    (row,) = read_examples(table("question,answer\nWhy?,So.\n")).rows
    assert row.images == ()
    assert row.messages[0]["content"] == [{"type": "text", "text": "Why?"}]


def test_dicom_objects_by_their_uid(folder: Path, table: Write) -> None:
    (folder / "ct" / "a").mkdir(parents=True)
    stored = np.zeros((4, 4), dtype=np.uint16)
    uids = [uid.generate_uid(), uid.generate_uid()]
    for name, sop in zip(("IM1", "x.dcm"), uids, strict=True):
        data = make_dicom(stored, SOPInstanceUID=sop)
        (folder / "ct" / "a" / name).write_bytes(data)
    path = table(f"SOPInstanceUID,label\n{uids[1]},x\n{uids[0]},y\n")
    assert [row.images[0].name for row in read_examples(path).rows] == ["x.dcm", "IM1"]
    path = table(f"SOPInstanceUID,label\n{uids[1]},x\n1.2.3,y\n")
    assert ", line 3: no DICOM object of this SOPInstanceUID" in refused(path)


def test_conversations(chats: Write, folder: Path) -> None:
    image = {"type": "image", "image": "scans/2.png"}
    content = [image, {"type": "text", "text": "What is it?"}]
    text = f"{chat(content, 'A cyst.', 'Sure?', 'Yes.')}\n\n{chat('Hello', 'Hi')}\n"
    first, second = read_examples(chats(text)).rows
    assert (first.line, second.line) == (1, 3)
    assert first.images == (folder / "scans" / "2.png",)
    assert first.messages[0]["content"][0]["image"] == folder / "scans" / "2.png"
    assert [message["role"] for message in first.messages] == ["user", "assistant"] * 2
    assert second.images == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ", line 1: the columns must be image,label or "),
        ("image,finding\nscans/1.png,a\n", "; it has image, finding"),
        ("image,label,answer\nscans/1.png,a,b\n", ", line 1: the columns must be"),
        ("image,label\n", ": no rows below the column names"),
        ("image,label\nscans/1.png,a\n", ": one label only"),
        ("image,label\nscans/1.png,a\nscans/3.png,b\n", ", line 3: no image scans/3.png in "),
        ("image,label\nscans/1.png,a\nscans,b\n", ", line 3: no image scans in "),
        ("image,label\nscans/1.png\nscans/2.png,b\n", ", line 2: 1 cells where"),
        ("image,label\nscans/1.png,\nscans/2.png,b\n", ", line 2: label is empty"),
        ("image,label\nscans/1.png,a\n,b\n", ", line 3: image is empty"),
        ('image,label\nscans/1.png,"a\nscans/2.png,b\n', ", line 3: unexpected end of data"),
        (
            "image,label\n" + "x.png,a\nscans/1.png,b\n" * 8,
            " (7 more rows are bad: 4, 6, 8, 10, 12, ...)",
        ),
        ("image,label\nx.png,a\nscans/1.png,\n", " (1 more row is bad: 3)"),
    ],
)
def test_bad_tables(table: Write, text: str, reason: str) -> None:
    assert reason in refused(table(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n", ": no conversations in it"),
        ("{\n", ", line 1: not JSON"),
        ("[]\n", ', line 1: not an object with "messages", a list'),
        (f"{chat('a', 'b')}\n{chat('a')}\n", ", line 2: the last message must be the assistant's"),
        (chat("a", "b").replace("user", "sister"), ", line 1: message 1: role 'sister'"),
        (chat("a", "b", "c"), ", line 1: the last message must be the assistant's"),
        (chat("a", "  "), ", line 1: the last message says nothing"),
        (chat("a", [{"type": "image", "image": "scans/1.png"}]), "says nothing, or not in text"),
        (chat([{"type": "image", "image": "x.png"}], "b"), ", line 1: no image x.png in "),
        (chat([{"type": "image", "image": 1}], "b"), ", line 1: an image is not a path"),
        (chat([{"type": "sound"}], "b"), ", line 1: message 1: content of type 'sound'"),
    ],
)
def test_bad_conversations(chats: Write, text: str, reason: str) -> None:
    assert reason in refused(chats(text))


def test_files_of_another_kind(folder: Path) -> None:
    assert "no .csv, .tsv or .jsonl file in this folder" in refused(folder)
    assert "no such file or folder" in refused(folder / "none")
    assert "are a .csv, .tsv or .jsonl file" in refused(folder / "scans" / "1.png")
    for name in ("a.csv", "b.csv"):
        (folder / name).write_bytes("image,label\nscans/1.png,\xe9\n".encode("latin-1"))
    assert "name one of its files: a.csv, b.csv" in refused(folder)
    assert "not UTF-8 text" in refused(folder / "a.csv")


def test_the_digest_sees_images_and_rows(table: Write, folder: Path) -> None:
    rows = "image,label\nscans/1.png,a\nscans/2.png,b\n"
    digests = {read_examples(table(rows)).digest()}
    digests.add(read_examples(table(rows + "\n")).digest())
    Picture.new("RGB", (8, 8), "red").save(folder / "scans" / "2.png")
    digests.add(read_examples(table(rows)).digest())
    assert len(digests) == 3
