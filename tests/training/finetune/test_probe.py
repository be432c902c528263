"""A classifier on an encoder, from few labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

import osler
from osler.errors import CheckpointError, UnreadableFileError
from osler.tasks.adapter import RECORD
from osler.tasks.head import (
    HEAD_FILE,
    WEIGHTS_FILE,
    Head,
    HeadClassifier,
    load_classifier,
    load_head,
    save_head,
)
from osler.training.finetune.probe import probe
from tests.training.finetune.conftest import Table


def test_it_tells_dark_from_bright(medsiglip_folder: Path, table: Table, tmp_path: Path) -> None:
    unseen = table(6, name="unseen")
    told: list[tuple[str, int, int]] = []
    done = probe(
        medsiglip_folder,
        table(12),
        tmp_path / "out",
        validation=unseen,
        progress=lambda *step: told.append(step),
    )
    assert done.labels == ("bright", "dark")
    assert done.cross_validation_accuracy == 1
    assert done.after == {"validation_accuracy": 1}
    assert told[-1] == ("reading", 18, 18)
    assert json.loads((tmp_path / "out" / RECORD).read_text())["strength"] == done.strength
    classifier = load_classifier(tmp_path / "out")
    dark, bright = classifier.classify([unseen / "0.png", unseen / "1.png"])
    assert (dark.label, bright.label) == ("dark", "bright")
    assert dark.source == "0.png"
    assert dark.notice == osler.load_encoder(medsiglip_folder).notice
    assert sum(dark.probabilities.values()) == pytest.approx(1)


def test_the_same_seed_gives_the_same_classifier(
    medsiglip_folder: Path, table: Table, tmp_path: Path
) -> None:
    data = table(8)
    for name in ("a", "b"):
        probe(medsiglip_folder, data, tmp_path / name, seed=3)
    for file in ("head.safetensors", HEAD_FILE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_data_that_make_no_classifier(medsiglip_folder: Path, table: Table, tmp_path: Path) -> None:
    data, out = table(3), tmp_path / "out"
    with pytest.raises(UnreadableFileError, match=r"labels\.csv, line 3: the only image of its"):
        probe(medsiglip_folder, data, out)
    (data / "1.png").write_text("no picture")
    (data / "labels.csv").write_text("image,label\n0.png,a\n1.png,a\n2.png,b\n0.png,b\n")
    with pytest.raises(UnreadableFileError, match=r"labels\.csv, line 3: 1\.png: "):
        probe(medsiglip_folder, data, out)
    (data / "labels.csv").write_text("image,question,answer\n0.png,a,b\n")
    with pytest.raises(UnreadableFileError, match="learns images with labels, not questions"):
        probe(medsiglip_folder, data, out)
    with pytest.raises(CheckpointError, match="not empty"):
        probe(medsiglip_folder, data, data)
    assert not out.exists()


def head(**changes: object) -> Head:
    values: dict[str, object] = {
        "encoder": "nano",
        "classes": ("a", "ü"),
        "weight_CD": np.arange(12, dtype=np.float32).reshape(2, 6),
        "bias_C": np.ones(2, np.float32),
    }
    return Head(**(values | changes))  # type: ignore[arg-type]


def test_a_head_comes_back_whole(tmp_path: Path) -> None:
    save_head(head(), tmp_path)
    again = load_head(tmp_path)
    assert (again.encoder, again.classes) == ("nano", ("a", "ü"))
    assert np.array_equal(again.weight_CD, head().weight_CD)
    assert np.array_equal(again.bias_C, head().bias_C)


def test_damaged_heads_are_refused(medsiglip_folder: Path, tmp_path: Path) -> None:
    save_head(head(), tmp_path)
    with pytest.raises(CheckpointError, match=r"embeddings of 6 values, .* gives 32"):
        HeadClassifier(osler.load_encoder(medsiglip_folder), load_head(tmp_path))
    save_head(head(classes=("a",)), tmp_path)
    with pytest.raises(CheckpointError, match="its classes do not fit"):
        load_head(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_head(tmp_path)
    (tmp_path / HEAD_FILE).write_text("{}")
    with pytest.raises(CheckpointError, match="names no encoder"):
        load_head(tmp_path)
    (tmp_path / HEAD_FILE).unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_head(tmp_path)


def test_pictures_may_have_any_size(medsiglip_folder: Path, table: Table, tmp_path: Path) -> None:
    data = table(4)
    Picture.open(data / "0.png").resize((300, 20)).save(data / "0.png")
    assert probe(medsiglip_folder, data, tmp_path / "out").examples == 4
