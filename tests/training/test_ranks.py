"""Two ranks on loopback do what one does, in both layouts."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image as Picture
from safetensors.torch import load_file

from osler.errors import InputError
from osler.tasks.adapter import RECORD
from osler.training.distributed import Layout, Ranks
from osler.training.finetune.settings import Method
from osler.training.loop import LoopConfig, train
from osler.training.rollouts import SAMPLES
from osler.training.run_log import read_metrics
from tests.training.ranks import CONFIG, both_recipes, reward, teach, tune
from tests.training.small import medgemma_folder, medsiglip_folder, small_pack
from tests.training.toys import Toy

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one rank: whole ones, and `five`, which stops half-way."""
    out = tmp_path_factory.mktemp("one")
    train(Toy(), CONFIG, out / "plain")
    train(Toy(), replace(CONFIG, accumulate=2), out / "accumulated")
    stopped(out / "five")
    return out


def run_two(what: str, out: Path) -> None:
    """Run one of the programs in `ranks` on two ranks."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
            *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
            *("-m", "tests.training.ranks", what, str(out)),
        ],
        cwd=ROOT,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def stopped(out: Path) -> None:
    """A run of CONFIG that ends after its first checkpoint."""

    class Stopped(Toy):
        def evaluate(self) -> dict[str, float]:
            if self.batches.number > 5:
                raise KeyboardInterrupt
            return super().evaluate()

    with pytest.raises(KeyboardInterrupt):
        train(Stopped(), CONFIG, out)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs by two processes that torchrun starts."""
    out = tmp_path_factory.mktemp("two")
    stopped(out / "five")
    run_two("pair", out)
    return out


def curve(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


def errors(run: Path) -> list[float]:
    return [line["evaluation"]["error"] for line in read_metrics(run) if "evaluation" in line]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
@pytest.mark.parametrize("accumulated", [False, True])
def test_two_ranks_follow_the_curve_of_one(
    one_rank: Path, two_ranks: Path, parallel: str, accumulated: bool
) -> None:
    one = one_rank / ("accumulated" if accumulated else "plain")
    two = two_ranks / (f"{parallel}-accumulated" if accumulated else parallel)
    assert len(curve(one)) == CONFIG.steps
    assert curve(one)[-1] < 0.7 * curve(one)[0]
    assert curve(two) == pytest.approx(curve(one), rel=1e-5)
    assert errors(two) == pytest.approx(errors(one), rel=1e-5)


@pytest.mark.slow
def test_recipes_that_are_sharded_follow_the_curve_of_one_rank(tmp_path: Path) -> None:
    # Here the order of data, captions and variation, and the texts of the other rank count too.
    small_pack(tmp_path / "pack")
    medsiglip_folder(tmp_path / "pack" / "tiny-encoder")
    medgemma_folder(tmp_path / "pack" / "tiny-decoder")
    both_recipes(tmp_path / "one", "none")
    run_two("recipes", tmp_path / "two")
    for run in ("encoder", "pretrain/text", "pretrain/images"):
        one, two = tmp_path / "one" / run, tmp_path / "two" / run
        assert len(curve(one)) == 3
        assert len(set(curve(one))) == 3
        assert curve(two) == pytest.approx(curve(one), rel=1e-5)
        weights, sharded = (load_file(out / "model" / "model.safetensors") for out in (one, two))
        assert weights.keys() == sharded.keys()
        # A softmax does not see the keys' bias: its gradient is rounding, which AdamW makes large.
        for name in (name for name in weights if not name.endswith("k_proj.bias")):
            torch.testing.assert_close(sharded[name], weights[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_what_follows_pretraining_is_the_same_on_two_ranks(tmp_path: Path) -> None:
    pack = small_pack(tmp_path / "pack")
    medgemma_folder(pack / "tiny-decoder")
    some_chats(pack / "chats.jsonl")
    one, two = tmp_path / "one", tmp_path / "two"
    teach(one, "none")
    reward(one, "none")
    methods: tuple[Method, ...] = ("lora", "qlora", "full")
    for method in methods:
        tune(one / method, method, "ddp")
    run_two("later", two)

    def same(run: str, other: str | None = None) -> None:
        found, wanted = curve(two / (other or run)), curve(one / run)
        assert len(wanted) >= 3
        assert len(set(wanted)) >= 3
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)

    same("distill")
    for parallel in ("ddp", "fsdp2"):
        same("reinforce", f"{parallel}/reinforce")
        # The answers themselves, which each rank drew its part of.
        drawn = [(at / "reinforce" / SAMPLES).read_text() for at in (one, two / parallel)]
        assert [json.loads(line)["answer"] for line in drawn[0].splitlines()] == [
            json.loads(line)["answer"] for line in drawn[1].splitlines()
        ]
    for method in methods:
        same(f"{method}/run")
        for name in ("before", "after"):
            told = [json.loads((at / method / RECORD).read_text())[name] for at in (one, two)]
            assert told[1] == pytest.approx(told[0], rel=1e-4)
    same("full/run", "full-fsdp2/run")
    weights = [load_file(at / "model.safetensors") for at in (one / "full", two / "full-fsdp2")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4, msg=name)
    factors = [load_file(at / "lora" / "adapter_model.safetensors") for at in (one, two)]
    for name, value in factors[0].items():
        torch.testing.assert_close(factors[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def some_chats(path: Path) -> None:
    """Questions with a picture and without, so that a rank may have none to look at."""
    lines = []
    for number in range(6):
        content: list[dict[str, str]] = [{"type": "text", "text": f"What is it {number}?"}]
        if number % 3:
            name = f"chat-{number}.png"
            Picture.new("RGB", (56, 56), (40 * number,) * 3).save(path.parent / name)
            content.insert(0, {"type": "image", "image": name})
        turns = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": "A cyst." if number % 2 else "It is clear."},
        ]
        lines.append(json.dumps({"messages": turns}))
    path.write_text("\n".join(lines) + "\n")


def test_a_run_of_one_rank_goes_on_with_two(one_rank: Path, two_ranks: Path) -> None:
    assert curve(two_ranks / "five") == pytest.approx(curve(one_rank / "plain"), rel=1e-5)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_run_of_two_ranks_goes_on_with_one(
    one_rank: Path, two_ranks: Path, parallel: str
) -> None:
    longer, whole = Toy(), Toy()
    train(longer, replace(CONFIG, steps=12), two_ranks / parallel, resume=True)
    train(whole, replace(CONFIG, steps=12), one_rank / "plain", resume=True)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(longer.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_several_ranks_need_a_layout_and_an_even_share() -> None:
    ranks = Ranks(rank=0, world=2)
    with pytest.raises(InputError, match="ddp or fsdp2"):
        Layout(Toy().model, "none", ranks)
    with pytest.raises(InputError, match="batch of 7"):
        ranks.share(7)


def test_sharding_runs_under_torchrun() -> None:
    with pytest.raises(InputError, match="torchrun"):
        train(Toy(), LoopConfig(steps=1, parallel="fsdp2"), Path("never-made"))
