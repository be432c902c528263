"""Distillation on a tiny student: batches, loss, recipe."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from osler.errors import InputError
from osler.models.checkpoint import load_medgemma, save_medgemma
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor
from osler.testing.models import randomise
from osler.testing.packs import one_of_each_class, write_image_pack, write_text_pack
from osler.testing.tokenizers import tiny_medgemma_folder
from osler.training.loop import LoopConfig, train
from osler.training.recipes.distill import DistillConfig, DistillTask, distill
from osler.training.recipes.job import Job
from osler.training.run_log import read_metrics
from osler.training.taught_batches import PackSequences, StoredBatches, StreamedBatches
from osler.training.teacher_store import StoreRecord, TeacherStore, write_store
from osler.training.teachers import taught

KEPT = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with all its files, as teacher and student."""
    path = tmp_path_factory.mktemp("tiny")
    model = MedGemma(tiny_medgemma_folder(path))
    randomise(model)
    save_medgemma(model, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of every class, and one text."""
    path = tmp_path_factory.mktemp("data")
    rows: list[dict[str, Any]] = [
        {"question": f"What is virus {i} ?", "answer": "It is very small."} for i in range(6)
    ]
    for split in ("train", "val"):
        write_image_pack(path, split, one_of_each_class())
    write_text_pack(path, "medquad", rows)
    (path / "text" / "notes-val.jsonl").write_text('{"text": "The lungs are clear."}\n')
    return path


@pytest.fixture(scope="module")
def sequences(folder: Path, data: Path) -> PackSequences:
    return PackSequences(data, "train", Processor.from_folder(folder), length=60)


@pytest.fixture(scope="module")
def store(
    folder: Path, sequences: PackSequences, tmp_path_factory: pytest.TempPathFactory
) -> TeacherStore:
    path = tmp_path_factory.mktemp("stores") / "store"
    about = StoreRecord(teacher="tiny", tokenizer_sha256="", kept=KEPT, drawn=False)
    told = (sequences[number] for number in range(12))
    write_store(path, taught(load_medgemma(folder), told, kept=KEPT, seed=None), about)
    return TeacherStore(path)


def test_a_number_is_always_the_same_sequence(sequences: PackSequences) -> None:
    told = [sequences[number] for number in range(30)]
    assert told[7] == sequences[7]
    with_image = [one for one in told if one.image]
    assert 8 <= len(with_image) <= 22
    assert max(len(one.sequence.ids) for one in told) == 60
    asked = list(sequences.questions(10))
    assert len(asked) == 10
    assert all(question for question, _ in asked)


def test_a_store_gives_each_sequence_once_an_epoch(store: TeacherStore, folder: Path) -> None:
    batches = StoredBatches(store, load_medgemma(folder), batch_size=3)
    seen = []
    for _ in range(8):
        batch = next(batches)
        assert len(batch.top_ids_TK) == len(batch.reading.learnt_T)
        seen += [tuple(row.tolist()) for row in batch.reading.ids_BL]
    stored = sorted(tuple(one.ids_L.tolist()) for one in store)
    for epoch in (seen[:12], seen[12:]):
        unpadded = sorted(tuple(i for i in row if i) for row in epoch)
        assert unpadded == [tuple(i for i in row if i) for row in stored]
    assert seen[:12] != seen[12:]


def test_batches_go_on_from_their_state(store: TeacherStore, folder: Path) -> None:
    model = load_medgemma(folder)
    first, again = (StoredBatches(store, model, batch_size=5, length=60) for _ in range(2))
    next(first)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    one, other = next(first), next(again)
    assert torch.equal(one.reading.ids_BL, other.reading.ids_BL)
    assert one.reading.ids_BL.shape == (5, 60)


def test_streamed_opinions_are_those_of_the_store(
    store: TeacherStore, folder: Path, sequences: PackSequences
) -> None:
    model = load_medgemma(folder)
    streamed = StreamedBatches(sequences, model, model, batch_size=4, kept=KEPT, drawn=False)
    batch = next(streamed)
    stored = store[:4]
    assert torch.equal(batch.top_ids_TK, torch.cat([one.top_ids_TK for one in stored]))
    wanted = torch.cat([one.top_logits_TK for one in stored]).float()
    torch.testing.assert_close(batch.top_logits_TK, wanted, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_the_dense_one(store: TeacherStore, folder: Path, share: float) -> None:
    model = load_medgemma(folder)
    batch = next(StoredBatches(store, model, batch_size=6))
    loss, figures = DistillTask(model, StoredBatches(store, model, batch_size=6), [], share).loss(
        batch
    )
    reading = batch.reading
    logits = model(reading.ids_BL[:, :-1], pixels_NCSS=reading.pixels_NCSS)
    logits = logits[reading.learn_BL[:, 1:]]
    wanted = (1 - share) * F.cross_entropy(logits, reading.learnt_T)
    soft = torch.zeros_like(logits).scatter(
        1, batch.top_ids_TK, batch.top_logits_TK.float().softmax(dim=1)
    )
    away = F.kl_div(logits.log_softmax(dim=1), soft, reduction="sum") / len(logits)
    torch.testing.assert_close(loss, wanted + share * away, rtol=1e-4, atol=1e-4)
    assert ("divergence" in figures, "plain_loss" in figures) == (share > 0, share < 1)
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    assert not any(p.requires_grad for p in model.vision_tower.parameters())


def test_a_student_comes_closer_to_its_teacher(
    store: TeacherStore, folder: Path, tmp_path: Path
) -> None:
    student = load_medgemma(folder)
    randomise(student, seed=1)
    task = DistillTask(student, StoredBatches(store, student, batch_size=6), [], 1.0)
    train(task, LoopConfig(steps=30, learning_rate=5e-3), tmp_path)
    figures = [line["divergence"] for line in read_metrics(tmp_path)]
    assert sum(figures[-5:]) < 0.7 * sum(figures[:5])


def test_the_recipe_asks_once_and_trains(folder: Path, data: Path, tmp_path: Path) -> None:
    job = Job(
        data=data, out=tmp_path / "out", model=str(folder), steps=2, bf16=False, compile=False
    )
    config = DistillConfig(teacher=str(folder), afresh=True, stored=8, kept=16, length=60)
    assert distill(job, config) == tmp_path / "out" / "model"
    record = TeacherStore(tmp_path / "out" / "store").record
    assert (record.kept, record.drawn, sum(s.sequences for s in record.shards)) == (16, True, 8)
    last = read_metrics(tmp_path / "out")[-1]["evaluation"]
    assert last.keys() == {"val_loss_text", "val_loss_images"}
    student, teacher = load_medgemma(tmp_path / "out" / "model"), load_medgemma(folder)
    assert torch.equal(
        student.vision_tower.embeddings.position_embedding.weight,
        teacher.vision_tower.embeddings.position_embedding.weight,
    )
    with pytest.raises(InputError, match="holds a run already"):
        distill(job, config)


def test_the_recipe_streams(folder: Path, data: Path, tmp_path: Path) -> None:
    job = Job(data=data, out=tmp_path, model=str(folder), steps=1, bf16=False, compile=False)
    distill(job, DistillConfig(teacher=str(folder), stored=None, kept=16, length=60))
    assert not (tmp_path / "store").exists()
    # A student that is its teacher has little to learn but for what the sample left out.
    assert 0 <= read_metrics(tmp_path)[0]["divergence"] < 10


def test_what_cannot_be_distilled(folder: Path, data: Path, tmp_path: Path) -> None:
    job = Job(data=data, out=tmp_path / "out", model=str(folder), steps=1)
    with pytest.raises(InputError, match="say how many"):
        distill(job, DistillConfig(teacher="http://127.0.0.1:9", stored=None))
    tiny_medgemma_folder(tmp_path / "other", vocab_size=490)
    with pytest.raises(InputError, match="not the student's"):
        distill(job, DistillConfig(teacher=str(tmp_path / "other"), stored=None))
    about = StoreRecord(teacher="x", tokenizer_sha256="0", kept=KEPT, drawn=False)
    told = PackSequences(data, "train", Processor.from_folder(folder), length=60)
    write_store(
        tmp_path / "out" / "store", taught(load_medgemma(folder), [told[0]], kept=KEPT), about
    )
    with pytest.raises(InputError, match="another tokenizer"):
        distill(job, DistillConfig(teacher=str(folder)))
    with pytest.raises(InputError, match="taught_share"):
        replace(DistillConfig(), taught_share=2.0)
