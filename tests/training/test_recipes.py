"""The recipes end to end, on tiny models and a small data pack."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import osler
from osler.cli import main
from osler.errors import InputError, UnreadableFileError
from osler.models.checkpoint import load_medgemma, load_medsiglip
from osler.models.config import medgemma_nano, medsiglip_nano
from osler.testing.packs import (
    add_to_tar,
    one_of_each_class,
    write_image_pack,
)
from osler.training.recipes import nano as recipe
from osler.training.recipes import nano_decoder, nano_encoders
from osler.training.recipes.job import Job
from osler.training.recipes.nano import nano
from osler.training.run_log import read_metrics
from tests.training.small import medgemma_folder, medsiglip_folder, small_pack

QUICK = ["--no-compile", "--float32", "--steps", "2"]


@pytest.fixture
def encoder_folder(tmp_path: Path) -> Path:
    return medsiglip_folder(tmp_path / "tiny-encoder")


@pytest.fixture
def decoder_folder(tmp_path: Path) -> Path:
    return medgemma_folder(tmp_path / "tiny-decoder")


def train(recipe: str, data: Path, out: Path, model: Path, *more: str) -> int:
    options = ["--data", str(data), "--out", str(out), "--model", str(model)]
    return main(["train", recipe, *options, *QUICK, *more])


def test_an_encoder_learns_from_pairs_of_any_kind(
    tmp_path: Path, encoder_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write_image_pack(data, "train", one_of_each_class())
    write_image_pack(data, "val", one_of_each_class()[:8])
    with tarfile.open(data / "images" / "web-000.tar", "w") as tar:
        for number, item in enumerate(one_of_each_class()[:5]):
            add_to_tar(tar, f"{number}.webp", item.image_bytes)
            add_to_tar(tar, f"{number}.txt", f"picture {number}".encode())
    out = tmp_path / "run"
    assert train("encoder", data, out, encoder_folder, "--batch-size", "8", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(out / "model")
    trained, start = load_medsiglip(out / "model"), load_medsiglip(encoder_folder)
    assert not torch.equal(trained.logit_scale, start.logit_scale)
    assert osler.load_encoder(out / "model").embed_texts(["a chest X-ray"]).shape == (1, 32)
    record = json.loads((out / "run.json").read_text())
    assert "web" in record["sources"]
    assert {entry["file"] for entry in record["data"]} >= {"web-000.tar", "us_busi-train.tar"}
    assert "val_loss" in read_metrics(out)[-1]["evaluation"]


def test_one_set_of_weights_learns_at_another_resolution(
    tmp_path: Path, encoder_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_image_pack(data, "train", one_of_each_class())
    start = load_medsiglip(encoder_folder).config.vision_config
    wanted = start.image_size * 2
    size = ("--image-size", str(wanted), "--batch-size", "8")
    assert train("encoder", data, out, encoder_folder, *size) == 0
    assert load_medsiglip(out / "model").config.vision_config.grid == start.grid * 2
    item = one_of_each_class()[0]
    (tmp_path / "a.webp").write_bytes(item.image_bytes)
    assert osler.load_encoder(out / "model").embed_images([tmp_path / "a.webp"]).shape == (1, 32)
    odd = ("--image-size", str(wanted + 1))
    assert train("encoder", data, tmp_path / "odd", encoder_folder, *odd) == 1
    assert "not a multiple of patch_size" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        train("pretrain", data, tmp_path / "no", encoder_folder, *size)


def test_pretraining_is_text_then_images(tmp_path: Path, decoder_folder: Path) -> None:
    out = tmp_path / "run"
    data = small_pack(tmp_path / "data")
    assert train("pretrain", data, out, decoder_folder, "--batch-size", "4") == 0
    for phase in ("text", "images"):
        assert [line["step"] for line in read_metrics(out / phase)] == [1, 2, 2]
        assert read_metrics(out / phase)[-1]["evaluation"]["val_loss"] > 0
    assert read_metrics(out / "images")[-1]["evaluation"]["val_loss_captions"] > 0
    start, trained = load_medgemma(decoder_folder), load_medgemma(out / "images" / "model")
    changed = {
        name
        for name, value in trained.state_dict().items()
        if not torch.equal(value, start.state_dict()[name])
    }
    assert any("language_model" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)


def test_a_run_is_not_begun_twice_but_goes_on(
    tmp_path: Path, decoder_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    rows = "".join(json.dumps({"text": f"The lungs are clear {i}."}) + "\n" for i in range(40))
    (data / "notes.jsonl").write_text(rows)
    small = ["--batch-size", "2", "--learning-rate", "1e-4"]
    assert train("pretrain", data, out, decoder_folder, *small) == 0
    assert train("pretrain", data, out, decoder_folder, *small) == 1
    assert "holds a run already" in capsys.readouterr().err
    more = ["--resume", "--steps", "3"]
    assert train("pretrain", data, out, decoder_folder, *small, *more) == 0
    assert [line["step"] for line in read_metrics(out / "text") if "loss" in line] == [1, 2, 3]


def test_a_bad_row_ends_the_run_with_its_line(
    tmp_path: Path, decoder_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "notes.jsonl"
    path.write_text('{"text": "The lungs are clear."}\n{"words": 3}\n')
    assert train("pretrain", tmp_path / "data", tmp_path / "run", decoder_folder) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == f"osler: {path}: line 2: no field 'text' or 'txt'"


@pytest.mark.parametrize("weight", ["web", "=1", "web=much"])
def test_a_weight_is_a_name_and_a_number(tmp_path: Path, weight: str) -> None:
    with pytest.raises(SystemExit) as stop:
        train("encoder", tmp_path, tmp_path / "run", tmp_path, "--weight", weight)
    assert stop.value.code == 2


def test_weights_of_other_sources_are_refused(tmp_path: Path, encoder_folder: Path) -> None:
    from osler.training.recipes.encoder import encoder

    write_image_pack(tmp_path, "train", one_of_each_class()[:3])
    job = Job(data=tmp_path, out=tmp_path / "run", model=str(encoder_folder), weights={"web": 0.98})
    with pytest.raises(InputError, match="do not match: cxr_kermany, web"):
        encoder(job)


def test_weights_go_to_the_part_that_has_the_source(tmp_path: Path, decoder_folder: Path) -> None:
    from osler.training.recipes.pretrain import pretrain

    data = small_pack(tmp_path / "data")
    texts = {"medquad": 3.0, "mts_dialog": 1.0}
    images = {item.set_name: 1.0 for item in one_of_each_class()}
    job = Job(
        data=data,
        out=tmp_path / "run",
        model=str(decoder_folder),
        steps=1,
        batch_size=4,
        compile=False,
        bf16=False,
        weights={**texts, **images},
    )
    assert pretrain(job) == job.out / "images" / "model"
    with pytest.raises(InputError, match="no source is called web"):
        pretrain(replace(job, out=tmp_path / "other", weights={"web": 1.0}))


def test_an_image_that_cannot_be_decoded_names_its_row(
    tmp_path: Path, encoder_folder: Path
) -> None:
    from osler.training.recipes.encoder import encoder

    with tarfile.open(tmp_path / "web.tar", "w") as tar:
        add_to_tar(tar, "7.webp", b"no image")
        add_to_tar(tar, "7.txt", b"words")
    job = Job(
        data=tmp_path / "web.tar",
        out=tmp_path / "run",
        model=str(encoder_folder),
        compile=False,
    )
    with pytest.raises(UnreadableFileError, match=r"web\.tar: 7: the image cannot be decoded"):
        encoder(job)


def test_the_nanos_decoder_refuses_encoders_of_other_sizes(
    tmp_path: Path, encoder_folder: Path
) -> None:
    job = Job(data=tmp_path, out=tmp_path / "run", model=str(encoder_folder))
    with pytest.raises(InputError, match="sizes are not those of the nano"):
        nano(job)
    assert not job.out.exists()


@pytest.mark.slow
def test_the_nano_goes_through_all_its_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The family's sizes, with one block each.
    gemma, siglip = medgemma_nano(), medsiglip_nano()
    vision = replace(siglip.vision_config, num_hidden_layers=1)
    one_text = replace(gemma.text_config, num_hidden_layers=1, layer_types=())
    small_siglip = replace(
        siglip,
        text_config=replace(siglip.text_config, num_hidden_layers=1),
        vision_config=vision,
    )
    monkeypatch.setattr(
        nano_decoder,
        "medgemma_nano",
        lambda: replace(gemma, text_config=one_text, vision_config=vision),
    )
    monkeypatch.setattr(
        nano_encoders,
        "medsiglip_nano",
        lambda: small_siglip,
    )
    monkeypatch.setattr(recipe, "medsiglip_nano", lambda: small_siglip)
    job = Job(
        data=small_pack(tmp_path / "data"),
        out=tmp_path / "run",
        steps=1,
        batch_size=4,
        bf16=False,
        compile=False,
    )
    nano(job)
    towers = []
    assert "right, cxr_kermany" in read_metrics(job.out / "teacher")[-1]["evaluation"]
    for phase in ("teacher", "encoder", "refine", "heads", "text", "images"):
        [line, *_] = read_metrics(job.out / phase)
        assert line["step"] == 1
    for phase in ("encoder", "refine", "heads"):
        towers.append(load_medsiglip(job.out / phase / "model").vision_model.state_dict())
        assert "right, cxr_kermany" in read_metrics(job.out / phase)[-1]["evaluation"]
    last = load_medgemma(job.out / "images" / "model").vision_tower.state_dict()
    moved = [
        any(not torch.equal(one[name], other[name]) for name in one)
        for one, other in zip(towers, [*towers[1:], last], strict=True)
    ]
    assert moved == [True, False, False], "the tower learns, then rests"
    answer = osler.load(str(job.out / "medgemma-nano")).ask("Is it normal?", max_new_tokens=2)
    assert "nano" in answer.notice
    assert osler.load_encoder(job.out / "medsiglip-nano").notice

    # Encoders that are there already: only the decoder learns.
    given = replace(job, out=tmp_path / "given", model=str(job.out / "heads" / "model"))
    nano(given)
    assert not (given.out / "encoder").exists()
    over = load_medgemma(given.out / "images" / "model").vision_tower.state_dict()
    assert all(torch.equal(value, over[name]) for name, value in last.items())

    # What is done is not done again.
    before = (job.out / "text" / "model" / "model.safetensors").stat().st_mtime_ns
    nano(job)
    assert (job.out / "text" / "model" / "model.safetensors").stat().st_mtime_ns == before
