"""The loop by itself: gradients, schedules, the average, what it leaves on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from osler.errors import InputError, NonFiniteError
from osler.training.ema import WeightAverage
from osler.training.loop import LoopConfig, to_device, train
from osler.training.run_log import read_metrics
from tests.training.toys import NumberedBatches, Rows, Toy

CONFIG = LoopConfig(steps=12, learning_rate=1e-2, warmup_steps=2)


def weights(toy: Toy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in toy.model.state_dict().items()}


def test_it_is_adamw_on_the_mean_over_the_real_rows(tmp_path: Path) -> None:
    config = LoopConfig(
        steps=4, accumulate=2, learning_rate=1e-2, weight_decay=0.1, schedule="constant"
    )
    toy, plain = Toy(), Toy()
    train(toy, config, tmp_path)
    trained = [p for p in plain.model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for _ in range(4):
        pair = [next(plain.batches) for _ in range(2)]
        real = sum(int(batch.real_B.sum()) for batch in pair)
        optimizer.zero_grad()
        for batch in pair:
            (plain.loss(batch)[0] * batch.real_B.sum() / real).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(toy.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_what_needs_no_gradient_rests(tmp_path: Path) -> None:
    toy = Toy()
    before = weights(toy)
    train(toy, replace(CONFIG, weight_decay=0.5), tmp_path)
    moved = {name for name, value in weights(toy).items() if not torch.equal(value, before[name])}
    assert moved == {name for name, p in toy.model.named_parameters() if p.requires_grad}
    assert "resting.weight" not in moved


def test_schedules() -> None:
    cosine = [replace(CONFIG, steps=20).learning_rate_at(step) for step in range(20)]
    assert cosine[:2] == pytest.approx([0.005, 0.01])
    assert cosine[2:] == sorted(cosine[2:], reverse=True)
    assert cosine[-1] < 0.001
    constant = replace(CONFIG, schedule="constant", warmup_steps=4)
    rates = [constant.learning_rate_at(step) for step in range(6)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


def test_the_average_is_what_is_evaluated_and_left(tmp_path: Path) -> None:
    toy, plain = Toy(), Toy()
    result = train(toy, replace(CONFIG, ema_decay=0.9), tmp_path / "averaged")
    train(plain, CONFIG, tmp_path / "plain")
    with torch.no_grad():
        assert toy.evaluate() == pytest.approx(result.evaluation)
        assert plain.evaluate() != pytest.approx(result.evaluation, rel=1e-3)


def test_the_average_lags_behind_the_weights_by_its_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(step=1)  # keeps 2 / 11
    assert average.values["weight"].item() == pytest.approx(9 / 11)
    average.update(step=100)  # keeps a half
    assert average.values["weight"].item() == pytest.approx(10 / 11)
    with average.in_place():
        assert model.weight.item() == pytest.approx(10 / 11)
    assert model.weight.item() == 1


def curve(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out) if "loss" in line]


def test_recomputed_blocks_give_the_same_curve(tmp_path: Path) -> None:
    train(Toy(dropout=0.1), CONFIG, tmp_path / "plain")
    train(Toy(dropout=0.1), replace(CONFIG, activation_checkpointing=True), tmp_path / "again")
    assert curve(tmp_path / "again") == pytest.approx(curve(tmp_path / "plain"), rel=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
def test_compiled_blocks_give_the_same_curve(tmp_path: Path) -> None:
    train(Toy(), CONFIG, tmp_path / "plain")
    train(Toy(), replace(CONFIG, compile=True), tmp_path / "compiled")
    assert curve(tmp_path / "compiled") == pytest.approx(curve(tmp_path / "plain"), rel=1e-4)


def test_a_run_says_what_it_was(tmp_path: Path) -> None:
    toy = Toy()
    result = train(
        toy, replace(CONFIG, evaluate_every=5), tmp_path, about={"recipe": "toy", "data": []}
    )
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["recipe"] == "toy"
    assert record["loop"]["learning_rate"] == 1e-2
    assert record["environment"]["torch"] == torch.__version__
    metrics = read_metrics(tmp_path)
    assert [line["step"] for line in metrics if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in metrics if "evaluation" in line] == [5, 10, 12]
    assert {"root", "gradient_norm", "learning_rate", "rows_per_s"} <= metrics[0].keys()
    assert result.steps == 12
    assert result.evaluation == metrics[-1]["evaluation"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_picture_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    train(Toy(), replace(CONFIG, steps=1), tmp_path)
    assert not (tmp_path / "curves.png").exists()
    assert "osler[train]" in caplog.text


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(Toy(), CONFIG, tmp_path)
    with pytest.raises(InputError, match="holds a run already"):
        train(Toy(), CONFIG, tmp_path)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    class Broken(NumberedBatches):
        def __next__(self) -> Rows:
            batch = super().__next__()
            return replace(batch, y_BD=batch.y_BD / 0) if self.number == 3 else batch

    toy = Toy()
    toy.batches = Broken()
    with pytest.raises(NonFiniteError, match="step 3"):
        train(toy, CONFIG, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"accumulate": 0}, {"learning_rate": 0.0}, {"ema_decay": 1.0}, {"keep_last": 0}],
)
def test_numbers_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        LoopConfig(**{"steps": 1, **wrong})


def test_batches_go_to_the_device_whatever_holds_them() -> None:
    batch = Rows(x_BD=torch.ones(1, 2), y_BD=torch.ones(1, 2), real_B=torch.ones(1))
    moved = to_device(
        {"rows": [batch], "name": "a", "pair": (torch.ones(1), 2)}, torch.device("meta")
    )
    assert moved["rows"][0].x_BD.is_meta
    assert moved["pair"][0].is_meta
    assert (moved["name"], moved["pair"][1]) == ("a", 2)
