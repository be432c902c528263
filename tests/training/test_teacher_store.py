"""A store gives back what it was given, or says that it cannot."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from osler.errors import InputError, UnreadableFileError
from osler.training.teacher_store import (
    StoreRecord,
    TaughtSequence,
    TeacherStore,
    write_store,
)

KEPT = 4
ABOUT = StoreRecord(teacher="a model", tokenizer_sha256="0" * 64, kept=KEPT, drawn=False)


def sequence(number: int, kept: int = KEPT) -> TaughtSequence:
    generator = torch.Generator().manual_seed(number)
    length, learnt = 5 + number, 1 + number % 4
    return TaughtSequence(
        ids_L=torch.randint(262_208, (length,), generator=generator),
        learn_L=torch.arange(length) >= length - learnt,
        top_ids_TK=torch.randint(262_208, (learnt, kept), generator=generator),
        top_logits_TK=torch.randn(learnt, kept, generator=generator).bfloat16(),
        image=b"" if number % 2 else b"RIFF" + bytes(range(number * 20)),
    )


def assert_equal(one: TaughtSequence, other: TaughtSequence) -> None:
    for name in ("ids_L", "learn_L", "top_ids_TK", "top_logits_TK"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == getattr(other, name).dtype
    assert one.image == other.image


@pytest.mark.parametrize("shard_tokens", [1, 6, 1000])
def test_what_is_stored_is_read_in_any_order(tmp_path: Path, shard_tokens: int) -> None:
    written = [sequence(number) for number in range(9)]
    record = write_store(tmp_path / "store", iter(written), ABOUT, shard_tokens=shard_tokens)
    assert record.tokens == sum(len(one.top_ids_TK) for one in written)
    assert (len(record.shards) == 1) == (shard_tokens == 1000)
    store = TeacherStore(tmp_path / "store")
    assert store.record == record
    assert len(store) == 9
    for number in (8, 0, 4, 3, 7, 1, 2, 6, 5):
        assert_equal(store[number], written[number])
    assert_equal(store[-1], written[-1])
    for one, other in zip(store[2:5], written[2:5], strict=True):
        assert_equal(one, other)
    for one, other in zip(store, written, strict=True):
        assert_equal(one, other)
    with pytest.raises(IndexError):
        store[9]


def test_fewer_tokens_are_filled_up_with_impossible_ones(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [sequence(3, kept=2)], ABOUT)
    found = TeacherStore(tmp_path / "store")[0]
    assert torch.equal(found.top_ids_TK[:, :2], sequence(3, kept=2).top_ids_TK)
    assert found.top_logits_TK[:, 2:].isneginf().all()


def test_a_token_takes_six_bytes(tmp_path: Path) -> None:
    long = TaughtSequence(
        ids_L=torch.zeros(1001, dtype=torch.long),
        learn_L=torch.arange(1001) > 0,
        top_ids_TK=torch.zeros(1000, 256, dtype=torch.long),
        top_logits_TK=torch.zeros(1000, 256),
    )
    record = write_store(tmp_path / "store", [long], ABOUT.model_copy(update={"kept": 256}))
    assert record.shards[0].bytes < 1000 * 256 * 6 * 1.01


def test_an_interrupted_store_is_none(tmp_path: Path) -> None:
    def broken() -> Iterator[TaughtSequence]:
        yield sequence(0)
        yield sequence(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", broken(), ABOUT, shard_tokens=1)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_and_nothing_is_no_store(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [sequence(0)], ABOUT)
    with pytest.raises(InputError, match="exists already"):
        write_store(tmp_path / "store", [sequence(1)], ABOUT)
    assert_equal(TeacherStore(tmp_path / "store")[0], sequence(0))
    with pytest.raises(InputError, match="no sequences"):
        write_store(tmp_path / "other", [], ABOUT)
    with pytest.raises(InputError, match="tokens a position"):
        write_store(tmp_path / "other", [sequence(0, kept=KEPT + 1)], ABOUT)
    assert not (tmp_path / "other").exists()


def test_damage_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    write_store(folder, [sequence(number) for number in range(3)], ABOUT)
    shard = folder / "shard-00000.safetensors"
    whole = shard.read_bytes()

    shard.write_bytes(whole[:-1])
    with pytest.raises(UnreadableFileError, match="shard-00000"):
        TeacherStore(folder)

    shard.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(UnreadableFileError, match="checksum"):
        TeacherStore(folder)[0]

    shard.unlink()
    with pytest.raises(UnreadableFileError, match="not there"):
        TeacherStore(folder)

    shard.write_bytes(whole)
    record = json.loads((folder / "store.json").read_text())
    for bad in ("{", json.dumps(record | {"kept": "many"}), json.dumps(record | {"more": 1})):
        (folder / "store.json").write_text(bad)
        with pytest.raises(UnreadableFileError, match=r"store\.json"):
            TeacherStore(folder)
    with pytest.raises(UnreadableFileError, match="not a store"):
        TeacherStore(tmp_path / "nowhere")


@pytest.mark.parametrize("learnt", [0, 2, 4])
def test_opinions_must_fit(learnt: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        TaughtSequence(
            ids_L=torch.zeros(6, dtype=torch.long),
            learn_L=torch.arange(6) > 2,
            top_ids_TK=torch.zeros(learnt, 2, dtype=torch.long),
            top_logits_TK=torch.zeros(learnt, 2),
        )


def test_the_first_token_cannot_be_learnt() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        TaughtSequence(
            ids_L=torch.zeros(2, dtype=torch.long),
            learn_L=torch.ones(2, dtype=torch.bool),
            top_ids_TK=torch.zeros(2, 2, dtype=torch.long),
            top_logits_TK=torch.zeros(2, 2),
        )
