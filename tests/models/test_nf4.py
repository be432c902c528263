"""Matrices in 4 bits: what they keep, what they cost, and that gradients go through them."""

import pytest
import torch
from torch import nn

from osler.models.lora import LoraConfig, add_lora, lora_layers, target_names
from osler.models.medgemma import MedGemma
from osler.models.nf4 import BLOCK, Linear4bit, hold_in_4_bits, levels
from osler.testing.models import randomise, tiny_medgemma


def test_the_levels_are_quantiles_of_the_normal_distribution() -> None:
    # What QLoRA's appendix E lists, to its digits.
    listed = "-1.0 -0.6961928 -0.5250731 -0.3949175 -0.2844414 -0.1847734 -0.0910500 0.0"
    listed += " 0.0795803 0.1609302 0.2461123 0.3379152 0.4407098 0.5626170 0.7229568 1.0"
    expected = torch.tensor([float(value) for value in listed.split()])
    torch.testing.assert_close(levels(), expected, atol=1e-6, rtol=0)


def test_each_weight_becomes_the_nearest_level_of_its_block() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(100, 30)  # rows that end inside a block, a last block that is not full
    weight = Linear4bit(linear).weight.flatten()
    exact = linear.weight.detach().flatten()
    for start in range(0, len(exact), BLOCK):
        block = exact[start : start + BLOCK]
        allowed = levels() * block.abs().max().bfloat16().float()
        nearest = allowed[(block[:, None] - allowed).abs().argmin(dim=1)]
        torch.testing.assert_close(weight[start : start + BLOCK], nearest, atol=1e-6, rtol=0)


def test_a_matrix_of_zeros_stays_one() -> None:
    linear = nn.Linear(8, 8)
    nn.init.zeros_(linear.weight)
    assert torch.equal(Linear4bit(linear).weight, torch.zeros(8, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.enable_grad()
def test_it_multiplies_and_passes_gradients_as_its_matrix_does(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    held = Linear4bit(nn.Linear(64, 48).to(dtype))
    plain = nn.Linear(64, 48).to(dtype)
    assert held.bias is not None
    plain.weight.data, plain.bias.data = held.weight, held.bias
    x, same_x = (torch.ones(2, 5, 64, dtype=dtype, requires_grad=True) for _ in range(2))
    out, same_out = held(x), plain(same_x)
    assert out.dtype == dtype
    assert torch.equal(out, same_out)
    out.square().sum().backward()
    same_out.square().sum().backward()
    torch.testing.assert_close(x.grad, same_x.grad)
    assert not list(held.parameters())


def bytes_held(model: nn.Module) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_a_matrix_takes_little_more_than_an_eighth_of_its_bytes() -> None:
    plain = nn.Linear(1024, 1024, bias=False)
    assert bytes_held(Linear4bit(plain)) < 0.134 * bytes_held(plain)


def test_a_model_lets_go_of_its_matrices() -> None:
    model = MedGemma(tiny_medgemma())
    before = bytes_held(model)
    freed = sum(module.weight.nbytes for module in model.modules() if isinstance(module, nn.Linear))
    hold_in_4_bits(model)
    taken = sum(
        tensor.nbytes
        for module in model.modules()
        if isinstance(module, Linear4bit)
        for tensor in (module.codes, module.scale_N, module.pairs)
    )
    assert bytes_held(model) == before - freed + taken


@torch.enable_grad()
def test_training_keeps_no_float_matrix_between_forward_and_backward() -> None:
    held = Linear4bit(nn.Linear(256, 256, bias=False))
    x = torch.ones(1, 256, requires_grad=True)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held(x)
    assert sum(tensor.numel() for tensor in kept) < 256 * 256


@torch.enable_grad()
def test_adapters_learn_over_a_model_in_4_bits() -> None:
    torch.manual_seed(0)
    model = MedGemma(tiny_medgemma())
    randomise(model)
    hold_in_4_bits(model)
    add_lora(model, LoraConfig(rank=2, dropout=0.0), target_names(model))
    ids = torch.tensor([[2, 5, 6, 121, 120, 120, 120, 120, 122, 7, 8]])
    model(ids, pixels_NCSS=torch.rand(1, 3, 56, 56)).square().mean().backward()
    for name, layer in lora_layers(model):
        assert layer.lora_B.weight.grad is not None, name
        assert layer.lora_B.weight.grad.abs().max() > 0, name
    assert {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == {
        "lora_A",
        "lora_B",
    }
