"""Muon beside torch's own, and under the loop."""

from pathlib import Path

import pytest
import torch
from torch import nn

from osler.errors import InputError
from osler.training.loop import LoopConfig, train
from osler.training.muon import MOMENTUM, Muon, orthogonalised
from osler.training.optim import muon
from tests.training.toys import Toy


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ orthogonalised(matrices) @ right.mT
    away = turned - torch.diag_embed(turned.diagonal(dim1=1, dim2=2))
    assert away.abs().max() < 1e-4


def test_a_matrix_of_zeros_stays() -> None:
    assert orthogonalised(torch.zeros(1, 4, 4)).abs().max() == 0


def test_it_is_torchs_muon_on_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch's rounds to bfloat16 inside; here both stay in float32.
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((8, 8), (8, 8), (6, 20), (20, 6))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizer = Muon(ours, [], lr=1e-2, weight_decay=0.1)
    reference = torch.optim.Muon(
        theirs,
        lr=1e-2,
        weight_decay=0.1,
        momentum=MOMENTUM,
        adjust_lr_fn="match_rms_adamw",
    )
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_what_is_no_matrix_of_a_block_is_adamws() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"head": nn.Linear(4, 3), "blocks": nn.ModuleList([nn.Linear(4, 4)])})
    twin = nn.Linear(4, 3)
    twin.load_state_dict(model["head"].state_dict())
    block_before = model["blocks"][0].weight.detach().clone()  # type: ignore[index]  # a list of blocks
    optimizer = muon(model, 1e-2, 0.1)
    reference = torch.optim.AdamW(
        [
            {"params": [twin.weight], "weight_decay": 0.1},
            {"params": [twin.bias], "weight_decay": 0.0},
        ],
        lr=1e-2,
    )
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for mine, other in zip(model["head"].parameters(), twin.parameters(), strict=True):
            assert mine.grad is not None
            other.grad = mine.grad.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(model["head"].weight, twin.weight)
    torch.testing.assert_close(model["head"].bias, twin.bias)
    assert not torch.equal(model["blocks"][0].weight, block_before)  # type: ignore[index]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    config = LoopConfig(steps=6, checkpoint_every=2, learning_rate=1e-2, optimizer="muon")
    whole, cut, rest = Toy(), Toy(), Toy()
    train(whole, config, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    train(cut, config, tmp_path / "cut")
    for late in (tmp_path / "cut" / "checkpoints").glob("step-*6"):
        late.rename(tmp_path / "away")
    train(rest, config, tmp_path / "cut", resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(rest.model.state_dict()[name], value), name


def test_sharded_matrices_are_refused() -> None:
    with pytest.raises(InputError, match="muon needs whole matrices"):
        LoopConfig(steps=1, optimizer="muon", parallel="fsdp2")
