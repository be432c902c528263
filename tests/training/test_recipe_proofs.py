"""The bench that proves the recipe's phases: its arithmetic, its page, and a quick run of all."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from bench.recipe import __main__ as bench
from bench.recipe.document import figure_table, put, shown
from bench.recipe.figures import gain, loss, loss_change, mean_area_gain
from bench.recipe.losses import sequence_losses
from bench.recipe.plots import draw
from bench.recipe.record import Record, curves, figures_of, points, proof, table
from bench.recipe.setting import Setting
from osler.errors import UnreadableFileError
from osler.evaluation.class_task import ClassTask
from osler.evaluation.encoder_figures import PROBE, Told
from osler.evaluation.figure import Figure
from osler.ingest.image_pack import PackedImage
from osler.models.config import medgemma_nano, medsiglip_nano
from osler.models.medgemma import MedGemma
from osler.testing.models import randomise, tiny_medgemma
from osler.testing.packs import one_of_each_class, write_image_pack
from osler.training.decoder import Batch, next_token_loss
from osler.training.recipes import nano_decoder, nano_encoders
from osler.training.recipes.job import Job
from osler.training.recipes.nano import nano
from tests.training.small import small_pack


def told(scores: list[float]) -> Told:
    """Of four images, the last two of which are ill."""
    truth_NC = np.array([[True, False], [True, False], [False, True], [False, True]])
    ill_N = np.array(scores)
    return Told(
        task=ClassTask(
            set_name="ct_covid",
            labels=("non_covid", "covid19"),
            rows=np.arange(4),
            truth_NC=truth_NC,
            groups=list("abcd"),
            exclusive=True,
        ),
        probabilities={PROBE: np.stack([1 - ill_N, ill_N], axis=1)},
        train_counts={},
        strength=1.0,
    )


def test_a_gain_in_area_is_that_of_each_set() -> None:
    guesses, knows = told([0.5, 0.5, 0.5, 0.5]), told([0.1, 0.2, 0.8, 0.9])
    one = mean_area_gain("", [guesses], [knows], PROBE, "knows")
    both = mean_area_gain("", [guesses, knows], [knows, knows], PROBE, "knows")
    assert (one.value, one.low, one.high, one.images) == (0.5, 0.5, 0.5, 4)
    assert both.value == 0.25
    assert mean_area_gain("", [knows], [guesses], PROBE, "").value == -0.5


def test_losses_are_weighed_by_their_tokens_and_changes_are_paired() -> None:
    tokens = np.array([1.0, 3.0])
    before, after = (np.array([2.0, 3.0]), tokens), (np.array([1.0, 1.0]), tokens)
    assert loss("", before, "ab", "").value == 5 / 4
    assert loss("", before, "ab", "", perplexity=True).value == pytest.approx(np.exp(5 / 4))
    change = loss_change("", before, after, "ab", "")
    assert change.value == pytest.approx(-3 / 4)
    assert change.low == -1
    assert change.high == pytest.approx(-2 / 3)
    assert gain("", "accuracy", [0, 0, 1, 1], [1, 1, 1, 0], "abcd", "").value == 0.25


def test_sequences_have_the_loss_that_the_recipe_learns_by() -> None:
    model = MedGemma(tiny_medgemma())
    randomise(model)
    ids_BL = torch.arange(12).view(2, 6) % 7
    learn_BL = torch.ones(2, 6, dtype=torch.bool)
    learn_BL[0, :3] = False
    batch = Batch(ids_BL=ids_BL, learn_BL=learn_BL)
    sums_N, tokens_N = sequence_losses(model, [batch, batch], "reading")
    assert tokens_N.tolist() == [3, 5, 3, 5]
    with torch.no_grad():
        wanted = float(next_token_loss(model, batch))
    assert sums_N.sum() / tokens_N.sum() == pytest.approx(wanted)


def test_figures_are_shown_with_interval_sign_and_count() -> None:
    area = Figure(name="skin", metric="AUC", value=0.9, low=0.8, high=0.95, images=1234, by="a")
    more = replace(area, metric="AUC gain", value=0.1, low=-0.05, high=0.25, by="b")
    other = replace(area, name="eye", metric="accuracy", images=5)
    assert shown(other) == "90.0% (80.0% to 95.0%)"
    assert figure_table(figures_of(table("", "", [area, more, other]))).splitlines() == [
        "|  | n | AUC, a | AUC gain, b | accuracy, a |",
        "|---|---:|---:|---:|---:|",
        "| skin | 1,234 | 0.900 (0.800 to 0.950) | +0.100 (-0.050 to +0.250) |  |",
        "| eye | 5 |  |  | 90.0% (80.0% to 95.0%) |",
    ]


def test_what_could_not_be_measured_survives_json() -> None:
    lost = Figure(name="x", metric="AUC", value=float("nan"), low=0, high=1, images=1, target=0.5)
    [again] = figures_of(json.loads(json.dumps(table("", "", [lost]), allow_nan=False)))
    assert shown(again) == "not measured"
    assert again.target == 0.5


def test_figures_go_between_their_own_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n", encoding="utf-8")
    put(page, "a", "new")
    assert page.read_text() == "# One\n<!-- a: begin -->\n\nnew\n\n<!-- a: end -->\nafter\n"
    with pytest.raises(UnreadableFileError, match="needs one line <!-- b: begin -->"):
        put(page, "b", "new")


def test_a_proof_that_is_there_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    area = Figure(name="skin", metric="AUC", value=0.9, low=0.8, high=0.95, images=9, by="probe")
    series = {"skin": {"probe": [(10, 0.6, 0.1), (100, 0.8, 0.0)]}}
    made = proof(
        tables=[table("Areas", "By probe.", [area])],
        plots=[
            points("dots.png", "Dots", "AUC", [area]),
            curves("curve.png", "Curve", "labels", "AUC", series, log_x=True),
        ],
        settings={"steps": 3},
    )
    asked: list[Path] = []

    def prove(setting: Setting) -> Record:
        asked.append(setting.out)
        return made

    monkeypatch.setitem(bench.PROOFS, "encoder", prove)
    out = tmp_path / "out"
    call = ["--data", str(tmp_path), "--run", str(tmp_path), "--out", str(out)]
    assert bench.main([*call, "--quick", "--only", "encoder"]) == 0
    assert bench.main([*call, "--quick", "--only", "encoder"]) == 0
    assert asked == [out]
    page = (out / "recipe.md").read_text()
    assert "| skin | 9 | 0.900 (0.800 to 0.950) |" in page
    assert page.count("Not yet measured.") == 4
    for name in ("dots.png", "curve.png"):
        assert (out / "recipe" / name).read_bytes().startswith(b"\x89PNG")
        assert f"](recipe/{name})" in page
    # Quick figures and true ones do not mix, and what is missing is named.
    doc = ["--doc", str(tmp_path / "page.md")]
    assert bench.main([*call, *doc]) == 1
    assert "holds quick figures" in capsys.readouterr().err
    other = [*call[:-1], str(tmp_path / "other"), *doc, "--only", "finetuning"]
    assert bench.main(other) == 1
    assert "not there; has the run ended?" in capsys.readouterr().err


def test_a_picture_of_no_curve_is_drawn(tmp_path: Path) -> None:
    path = draw(curves("none.png", "", "x", "y", {"empty": {}}), tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")


def several(copies: int) -> list[PackedImage]:
    """Images of every class, each of something else and a patient of its own."""
    return [
        replace(item, group=f"{place}-{number}", image_bytes=noise(place * copies + number))
        for number in range(copies)
        for place, item in enumerate(one_of_each_class())
    ]


def noise(seed: int) -> bytes:
    """A WebP file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "WEBP")
    return buffer.getvalue()


@pytest.mark.slow
def test_all_phases_are_proven_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The family's sizes, with one block each.
    gemma, siglip = medgemma_nano(), medsiglip_nano()
    vision = replace(siglip.vision_config, num_hidden_layers=1)
    text = replace(gemma.text_config, num_hidden_layers=1, layer_types=())
    gemma = replace(gemma, text_config=text, vision_config=vision)
    siglip = replace(
        siglip,
        text_config=replace(siglip.text_config, num_hidden_layers=1),
        vision_config=vision,
    )
    monkeypatch.setattr(nano_decoder, "medgemma_nano", lambda: gemma)
    monkeypatch.setattr(nano_encoders, "medsiglip_nano", lambda: siglip)
    data, run, out = (tmp_path / name for name in ("data", "run", "out"))
    small_pack(data)
    write_image_pack(data, "train", several(2))
    write_image_pack(data, "val", several(1))
    nano(Job(data=data, out=run, steps=1, batch_size=4, bf16=False, compile=False))
    call = ["--data", str(data), "--run", str(run), "--out", str(out), "--quick"]
    assert bench.main(call) == 0
    page = (out / "recipe.md").read_text()
    assert "Not yet measured." not in page
    proofs = json.loads((out / bench.FOUND).read_text())["proofs"]
    assert list(proofs) == list(bench.PROOFS)
    for record in proofs.values():
        for one in record["tables"]:
            assert all(figure["images"] > 0 for figure in one["figures"])
        for plot in record["plots"]:
            assert (out / "recipe" / plot["file"]).exists()
    seen = {figure["name"] for figure in proofs["encoder"]["tables"][0]["figures"]}
    assert len(seen) >= 6
    assert not any("ultrasound" in name for name in seen), "held out"
    [tuned] = proofs["finetuning"]["tables"]
    assert any("ultrasound" in figure["name"] for figure in tuned["figures"])
