"""Sources, their mixture, and batches that ranks agree on."""

import gzip
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from osler.errors import InputError, UnreadableFileError
from osler.testing.packs import add_to_tar, one_of_each_class, write_image_pack
from osler.training.distributed import Ranks
from osler.training.streams.batches import Ahead, PackedBatches, SampleBatches
from osler.training.streams.mixture import Drawn, Mixture
from osler.training.streams.shards import ShardFile, all_rows, find_shards, fingerprint


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sources: two series of two files each, and one file."""
    for number, count in ((0, 5), (1, 4)):
        rows = [{"text": f"a{number}{i}"} for i in range(count)]
        write_lines(tmp_path / f"a-{number}.jsonl", rows)
        packed = gzip.compress("".join(f'{{"text": "b{number}{i}"}}\n' for i in range(3)).encode())
        (tmp_path / f"b-train-{number}.jsonl.gz").write_bytes(packed)
    pq.write_table(
        pa.table({"text": [f"c{i}" for i in range(7)], "n": list(range(7))}),
        tmp_path / "c.parquet",
        row_group_size=3,
    )
    write_lines(tmp_path / "a-val.jsonl", [{"text": "held back"}])
    return tmp_path


def texts(mixture: Mixture, count: int) -> list[str]:
    return [drawn.read().text("text") for drawn in islice(mixture, count)]


def test_sources_of_a_folder(folder: Path) -> None:
    sources = find_shards(folder)
    assert {name: len(shards) for name, shards in sources.items()} == {"a": 2, "b": 2, "c": 3}
    assert [row.fields["text"] for row in all_rows(sources["c"])] == [f"c{i}" for i in range(7)]
    assert [row.text("text") for row in all_rows(find_shards(folder, "val")["a"])] == ["held back"]
    with pytest.raises(UnreadableFileError, match="nowhere"):
        find_shards(folder / "nowhere")


def test_a_tar_and_a_folder_give_the_same_samples(tmp_path: Path) -> None:
    files = {"x/1.png": b"one", "x/1.json": b'{"n": 1}', "y/2.png": b"two", "y/2.txt": b"second\n"}
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    with tarfile.open(tmp_path / "web-000.tar", "w") as tar:
        for name, content in files.items():
            add_to_tar(tar, name, content)
    wanted: list[dict[str, Any]] = [
        {"png": b"one", "json": {"n": 1}},
        {"png": b"two", "txt": "second"},
    ]
    [of_tar] = find_shards(tmp_path / "web-000.tar").values()
    assert [row.fields for row in all_rows(of_tar)] == wanted
    [of_folder] = find_shards(tmp_path / "folder").values()
    in_folder = [{**fields, "folder": name} for fields, name in zip(wanted, "xy", strict=True)]
    assert [row.fields for row in all_rows(of_folder)] == in_folder


def test_the_data_pack_is_a_source_a_set(tmp_path: Path) -> None:
    items = one_of_each_class()
    write_image_pack(tmp_path, "train", items)
    write_image_pack(tmp_path, "val", items[:1])
    sources = find_shards(tmp_path / "images")
    assert sources.keys() == {item.set_name for item in items}
    rows = [row for shards in sources.values() for row in all_rows(shards)]
    assert len(rows) == len(items)
    assert all(row.fields.keys() == {"json", "webp"} for row in rows)


def test_every_epoch_has_every_row_once_in_a_new_order(folder: Path) -> None:
    mixture = Mixture({"a": find_shards(folder)["a"]})
    first, second = texts(mixture, 9), texts(mixture, 9)
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert first != second
    assert first != sorted(first)


def test_shares_hold_in_every_beginning(folder: Path) -> None:
    weights = {"a": 0.02, "b": 0.68, "c": 0.3}
    mixture = Mixture(find_shards(folder), weights)
    drawn = Counter[str]()
    for number, next_drawn in enumerate(islice(mixture, 500), start=1):
        drawn[next_drawn.source] += 1
        assert all(abs(drawn[name] - weights[name] * number) <= 1 for name in weights)
    assert drawn["a"] == 10


def test_without_weights_every_row_has_the_same_chance(folder: Path) -> None:
    mixture = Mixture(find_shards(folder))
    assert mixture.shares == pytest.approx({"a": 9 / 22, "b": 6 / 22, "c": 7 / 22})


def test_the_order_follows_from_the_seed(folder: Path) -> None:
    one, same, other = (texts(Mixture(find_shards(folder), seed=s), 40) for s in (0, 0, 1))
    assert one == same
    assert one != other


@pytest.mark.parametrize("stop", [0, 1, 13, 22, 31])
def test_a_stream_goes_on_where_it_stopped(folder: Path, stop: int) -> None:
    whole = texts(Mixture(find_shards(folder)), 60)
    stopped, resumed = Mixture(find_shards(folder)), Mixture(find_shards(folder))
    texts(stopped, stop)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert texts(resumed, 60 - stop) == whole[stop:]


def test_a_state_of_other_data_is_refused(folder: Path) -> None:
    mixture = Mixture({"a": find_shards(folder)["a"]})
    with pytest.raises(InputError, match="other data"):
        mixture.load_state_dict(Mixture(find_shards(folder)).state_dict())


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"a": 1.0, "b": 0.0, "c": 1.0}])
def test_weights_are_of_all_sources_and_above_zero(folder: Path, weights: dict[str, float]) -> None:
    with pytest.raises(InputError, match="weight"):
        Mixture(find_shards(folder), weights)


def sample_batches(folder: Path, ranks: Ranks) -> SampleBatches[str, list[str]]:
    def make(drawn: Drawn) -> str:
        return f"{drawn.read().text('text')} {drawn.rng().random()}"

    return SampleBatches(Mixture(find_shards(folder)), make, list, 8, ranks)


def packed_batches(folder: Path, ranks: Ranks) -> PackedBatches[list[list[int]]]:
    def make(drawn: Drawn) -> list[tuple[list[int], list[bool]]]:
        ids = [ord(letter) for letter in drawn.read().text("text")] * drawn.rng().randint(0, 3)
        return [(ids, [True] * len(ids))]

    return PackedBatches(
        Mixture(find_shards(folder)), make, lambda ids, _: ids, batch_size=4, length=5, ranks=ranks
    )


def batches_ahead(folder: Path, ranks: Ranks) -> Ahead[list[list[int]]]:
    return Ahead(packed_batches(folder, ranks))


@pytest.mark.parametrize("of_folder", [sample_batches, packed_batches, batches_ahead])
def test_two_ranks_share_the_batches_of_one_and_go_on_for_each_other(
    folder: Path, of_folder: Any
) -> None:
    pair = [of_folder(folder, Ranks(rank=rank, world=2)) for rank in (0, 1)]
    alone = of_folder(folder, Ranks())
    whole = [next(alone) for _ in range(9)]
    for batch in whole[:4]:
        assert next(pair[0]) + next(pair[1]) == batch
    assert pair[0].state_dict() == pair[1].state_dict()
    resumed = of_folder(folder, Ranks())
    resumed.load_state_dict(json.loads(json.dumps(pair[1].state_dict())))
    assert [next(resumed) for _ in range(5)] == whole[4:]


def test_a_bad_row_ahead_fails_when_its_batch_is_due(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "only one is good"}\n')

    def make(drawn: Drawn) -> str:
        place = int(drawn.place.rpartition("/")[2])
        return drawn.read().text("text" if place < 2 else "words")

    alone = SampleBatches(Mixture(find_shards(path)), make, list, 1, Ranks())
    batches = Ahead(alone)
    assert [next(batches), next(batches)] == [["only one is good"]] * 2
    with pytest.raises(UnreadableFileError, match="line 1"):
        next(batches)


def test_a_rank_does_not_read_the_rows_of_others(folder: Path) -> None:
    read: list[str] = []

    def make(drawn: Drawn) -> None:
        read.append(drawn.read().where)

    batches = SampleBatches(Mixture(find_shards(folder)), make, list, 10, Ranks(rank=1, world=5))
    next(batches)
    assert len(read) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [("{half", "is not JSON"), ("[1]", "is not a JSON object"), ('{"n": 1}', "no field 'text'")],
)
def test_a_bad_row_names_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "good"}}\n\n{line}\n')
    with pytest.raises(UnreadableFileError) as caught:
        texts(Mixture(find_shards(path)), 2)
    assert str(caught.value) == f"{path}: line 3{':' if 'field' in reason else ''} {reason}"


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl.gz", b"no gzip"), ("a.tar", b"no tar" * 200), ("a.parquet", b"no parquet")],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFileError, match=name):
        Mixture(find_shards(tmp_path))


def test_sources_without_rows(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no rows"):
        find_shards(tmp_path)
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(UnreadableFileError, match=r"a\.jsonl: no rows"):
        Mixture(find_shards(tmp_path))
    with pytest.raises(UnreadableFileError, match=r"a\.jsonl: no rows"):
        next(Mixture(find_shards(tmp_path), {"a": 1.0}))


def test_parquet_without_pyarrow_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"osler\[train\]"):
        ShardFile(path=folder / "c.parquet", row_group=0).open()


def test_fingerprints_tell_files_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3_000_000)
    before = fingerprint(path)
    path.write_bytes(b"x" * 2_999_999 + b"y")
    assert before["bytes"] == fingerprint(path)["bytes"]
    assert before["sha256"] != fingerprint(path)["sha256"]
    monkeypatch.setattr("osler.training.streams.shards._HASHED_WHOLE_BYTES", 2_000_000)
    ends = fingerprint(path)
    path.write_bytes(b"y" + b"x" * 2_999_999)
    assert ends["sha256_of_ends"] != fingerprint(path)["sha256_of_ends"]
