import gzip
import tarfile
from pathlib import Path
from typing import Any

import pytest

from osler.errors import UnreadableFileError
from osler.ingest.image_pack import read_image_pack
from osler.ingest.text_pack import read_text_pack
from osler.testing.packs import (
    add_to_tar,
    one_of_each_class,
    packed_image,
    write_image_pack,
    write_text_pack,
)

RECORD = b'{"set": "us_busi", "group": "g", "modality": "US", "body_part": "BREAST"}'


def test_an_image_pack_gives_back_its_records_set_by_set(tmp_path: Path) -> None:
    items = one_of_each_class()
    write_image_pack(tmp_path, "val", items)
    read = list(read_image_pack(tmp_path, "val"))
    assert [item.set_name for item in read] == sorted(item.set_name for item in items)
    first = next(item for item in read if item.set_name == "fundus_odir512")
    assert first.labels == {"eye": ["N"]}
    assert first.text == "normal fundus, lens dust"
    assert first.meta["laterality"] == "R"
    assert first.image_bytes[8:12] == b"WEBP"


def test_the_images_folder_itself_will_do_and_sets_can_be_chosen(tmp_path: Path) -> None:
    write_image_pack(tmp_path, "train", one_of_each_class())
    read = read_image_pack(tmp_path / "images", "train", sets=["us_busi", "ct_covid"])
    assert [item.set_name for item in read] == ["us_busi"] * 3 + ["ct_covid"] * 2


def test_splits_do_not_mix(tmp_path: Path) -> None:
    finding = {"finding": "benign"}
    write_image_pack(tmp_path, "train", [packed_image("us_busi", "US", "BREAST", finding)])
    write_image_pack(tmp_path, "val", [packed_image("ct_covid", "CT", "CHEST", finding)])
    assert [item.set_name for item in read_image_pack(tmp_path, "val")] == ["ct_covid"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.json", RECORD)], "a.json has no image after it"),
        ([("a.webp", b"RIFF")], "a.webp has no image after it"),
        ([("a.json", RECORD), ("b.webp", b"RIFF")], "a.json has no image after it"),
        ([("a.json", b"{"), ("a.webp", b"RIFF")], "a.json is not a record"),
        ([("a.json", b'{"set": "us_busi"}'), ("a.webp", b"RIFF")], "a.json is not a record"),
        ([("a.json", b"[]"), ("a.webp", b"RIFF")], "a.json is not a record"),
    ],
)
def test_a_set_with_a_broken_record_is_refused_by_name(
    tmp_path: Path, members: list[tuple[str, bytes]], reason: str
) -> None:
    path = tmp_path / "us_busi-train.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            add_to_tar(tar, name, content)
    with pytest.raises(UnreadableFileError, match=reason) as caught:
        list(read_image_pack(tmp_path, "train"))
    assert str(path) in str(caught.value)


def test_missing_and_damaged_image_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no image sets"):
        list(read_image_pack(tmp_path, "train"))
    with pytest.raises(UnreadableFileError, match=r"us_busi-train\.tar: no such image set"):
        list(read_image_pack(tmp_path, "train", sets=["us_busi"]))
    write_image_pack(tmp_path, "train", one_of_each_class()[:1])
    path = tmp_path / "images" / "cxr_kermany-train.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UnreadableFileError, match="not a readable tar file"):
        list(read_image_pack(tmp_path, "train"))


def test_text_rows_belong_to_training_unless_they_say_otherwise(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"n": 1}, {"n": 2, "split": "val"}, {"n": 3, "split": "train"}]
    write_text_pack(tmp_path, "notes", rows)
    assert [row["n"] for row in read_text_pack(tmp_path, "notes", "train")] == [1, 3]
    assert [row["n"] for row in read_text_pack(tmp_path / "text", "notes", "val")] == [2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"plain", "not a readable gzip file"),
        (gzip.compress(b'{"n": 1}\n' * 99)[:-9], "not a readable gzip file"),
        (gzip.compress(b"\xff\xfe"), "not a readable gzip file"),
        (gzip.compress(b'{"n": 1}\n{"n"'), "line 2 is not JSON"),
        (gzip.compress(b"[1]"), "line 1 is not a JSON object"),
    ],
)
def test_a_damaged_text_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "notes.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=reason) as caught:
        list(read_text_pack(tmp_path, "notes", "train"))
    assert str(path) in str(caught.value)


def test_a_missing_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"notes\.jsonl\.gz: no such text"):
        list(read_text_pack(tmp_path, "notes", "train"))
