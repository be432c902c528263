"""States on disk: whole or not there, and a run that goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from osler.errors import CorruptFileError, UnreadableFileError
from osler.training.loop import LoopConfig, train
from osler.training.run_log import METRICS, read_metrics
from tests.training.ranks import LONG
from tests.training.test_ranks import ROOT
from tests.training.toys import Toy

CONFIG = LoopConfig(steps=6, checkpoint_every=2, keep_last=2, ema_decay=0.9)


def same(one: Toy, other: Toy) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    train(Toy(), CONFIG, tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000006"]


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.ranks", "alone", str(out)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wanted = random.randint(8, 60)
    deadline = time.monotonic() + 60
    while not (out / METRICS).exists() or len((out / METRICS).read_bytes().splitlines()) < wanted:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = len(read_metrics(out))
    assert wanted - 1 <= reached < LONG.steps

    config = replace(LONG, steps=reached + 10, schedule="constant")
    # The schedule depends on how many steps there are: a constant one lets the test be short.
    resumed, whole = Toy(dropout=0.2), Toy(dropout=0.2)
    train(resumed, config, out, resume=True)
    train(whole, config, tmp_path / "whole")
    assert same(resumed, whole)
    assert [line.get("loss") for line in read_metrics(out)] == [
        line.get("loss") for line in read_metrics(tmp_path / "whole")
    ]


def test_what_was_being_written_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(source: Path, target: Path) -> None:
        if Path(target).name == "step-00000004":
            raise KeyboardInterrupt
        replace_file(source, target)

    replace_file = os.replace
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        train(Toy(), CONFIG, tmp_path)
    monkeypatch.undo()
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"step-00000002", "step-00000004.partial"}
    resumed, whole = Toy(), Toy()
    train(resumed, CONFIG, tmp_path, resume=True)
    train(whole, CONFIG, tmp_path / "whole")
    assert same(resumed, whole)
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_a_state_holds_only_what_trains(tmp_path: Path) -> None:
    class Other(Toy):
        def __init__(self) -> None:
            super().__init__()
            torch.nn.init.ones_(self.model.resting.weight)

    train(Toy(), CONFIG, tmp_path)
    other = Other()
    train(other, CONFIG, tmp_path, resume=True)
    assert (other.model.resting.weight == 1).all()


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    train(Toy(), CONFIG, tmp_path)
    last = tmp_path / "checkpoints" / "step-00000006"
    tensors = last / "__0_0.distcp"
    tensors.write_bytes(tensors.read_bytes()[:-500])
    with pytest.raises(CorruptFileError, match="step-00000006"):
        train(Toy(), CONFIG, tmp_path, resume=True)
    (last / "state.json").write_text("{")
    with pytest.raises(UnreadableFileError, match=r"state\.json"):
        train(Toy(), CONFIG, tmp_path, resume=True)


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    class Wider(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.model.first = torch.nn.Linear(6, 17)

    train(Toy(), CONFIG, tmp_path)
    with pytest.raises(CorruptFileError, match="of this model"):
        train(Wider(), CONFIG, tmp_path, resume=True)
