"""Rounding to int4: valid codes, less error than a naive rounding, and inputs that matter."""

import numpy as np
import pytest
import torch
from torch import Tensor

from osler.models.medgemma import MedGemma
from osler.native.calibration import input_moments
from osler.native.decoder_weights import EMBEDDING, decoder_parts
from osler.native.quantize import GROUP, UNIT, Int4, Rounding, quantize_int4, round_q4_0
from osler.testing.models import randomise, tiny_medgemma_text


def weights(rows: int = 48, cols: int = 512, seed: int = 0) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


def correlated_inputs(cols: int, count: int = 4000) -> Tensor:
    """Inputs of very different sizes, each close to its neighbours."""
    generator = torch.Generator().manual_seed(1)
    steps = torch.randn(count, cols + 15, generator=generator)
    smooth = steps.unfold(1, 16, 1).mean(dim=2)
    return smooth * torch.linspace(0.2, 3.0, cols)[torch.randperm(cols, generator=generator)]


def moments(x_LC: Tensor) -> Tensor:
    x_ULI = x_LC.unflatten(1, (-1, UNIT)).transpose(0, 1)
    return x_ULI.transpose(1, 2) @ x_ULI / len(x_LC)


def test_codes_are_in_their_ranges_and_stand_for_the_weights() -> None:
    weight = weights(cols=300)
    packed = quantize_int4(weight, Rounding.plain(300))
    assert packed.value_RC.shape == (48, 512)
    assert packed.multiplier_RG.shape == (48, 512 // GROUP)
    assert int(packed.value_RC.min()) >= -8
    assert int(packed.value_RC.max()) <= 7
    assert int(packed.multiplier_RG.min()) >= 1
    assert int(packed.multiplier_RG.max()) <= 16
    assert packed.value_RC[:, 300:].eq(0).all()
    for row, group, column in ((0, 0, 3), (7, 2, 70), (47, 9, 299)):
        wanted = (
            float(packed.row_scale_R[row])
            * int(packed.multiplier_RG[row, group])
            * int(packed.value_RC[row, column])
        )
        assert float(packed.weight_RC()[row, column]) == pytest.approx(wanted, rel=1e-6)


def test_weights_that_the_format_holds_come_back_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    multiplier = torch.randint(1, 16, (8, 16), generator=generator).to(torch.uint8)
    value = torch.randint(-8, 8, (8, 512), generator=generator).to(torch.int8)
    value[:, ::GROUP], value[:, 1::GROUP] = -8, 7
    multiplier[:, 0] = 16
    held = Int4(
        value_RC=value, multiplier_RG=multiplier, row_scale_R=torch.full((8,), 0.25)
    ).weight_RC()
    rounded = quantize_int4(held, Rounding.plain(512)).weight_RC()
    torch.testing.assert_close(rounded, held, rtol=0, atol=1e-4)


@pytest.mark.parametrize("freedom", [3.0, 5.0, 1e6])
def test_the_scales_of_a_row_do_with_fewer_bits_nearly_as_well_as_one_a_group(
    freedom: float,
) -> None:
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(freedom).sample((64, 1024))
    ours = quantize_int4(weight, Rounding.plain(1024)).weight_RC()
    # 4.125 bits a weight against 4.5.
    allowed = {3.0: 1.25, 5.0: 1.15, 1e6: 1.07}[freedom]
    assert float((ours - weight).square().mean()) < allowed * float(
        (round_q4_0(weight) - weight).square().mean()
    )


def test_moments_bring_the_error_of_the_outputs_far_below_plain_rounding() -> None:
    weight, x = weights(), correlated_inputs(512)
    ours = quantize_int4(weight, Rounding(moments(x))).weight_RC()
    plain = quantize_int4(weight, Rounding.plain(512)).weight_RC()

    def error(rounded: Tensor) -> float:
        return float(((rounded - weight) @ x.T).square().mean())

    assert error(ours) < 0.6 * error(round_q4_0(weight))
    assert error(ours) < 0.6 * error(plain)


def test_rows_are_rounded_alone() -> None:
    weight, rounding = weights(), Rounding(moments(correlated_inputs(512)))
    whole = quantize_int4(weight, rounding).weight_RC()
    parts = torch.cat([quantize_int4(part, rounding).weight_RC() for part in weight.split(16)])
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-6)


def test_zeros_and_tiny_weights() -> None:
    weight = torch.zeros(4, 256)
    weight[1] = 1e-20 * weights(1, 256)[0]
    weight[2, :32] = weights(1, 32)[0]
    weight[3, 5] = 1.0
    rounded = quantize_int4(weight, Rounding.plain(256)).weight_RC()
    assert rounded.isfinite().all()
    assert rounded[0].eq(0).all()
    assert rounded[2, 32:].eq(0).all()
    torch.testing.assert_close(rounded[3], weight[3], rtol=0, atol=1e-6)


def test_inputs_that_were_never_anything_but_zero() -> None:
    x = correlated_inputs(512)
    x[:, 256:] = 0
    rounded = quantize_int4(weights(), Rounding(moments(x))).weight_RC()
    assert float((rounded - weights()).square().mean()) < 0.02


def test_q4_0_is_that_of_gguf() -> None:
    gguf = pytest.importorskip("gguf")
    weight = weights(8, 256).numpy()
    blocks = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q4_0)
    wanted = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(round_q4_0(torch.from_numpy(weight)).numpy(), wanted)


def test_moments_of_a_model_are_those_of_its_inputs() -> None:
    model = MedGemma(tiny_medgemma_text()).eval()
    randomise(model)
    texts = [[2, 5, 9, 11], [2, 7]]
    found = input_moments(model, texts)
    matrices = {part.name for part in decoder_parts(model.config.text_config) if part.is_matrix}
    assert found.keys() == matrices
    assert found["language_model.layers.0.mlp.down_proj.weight"].shape == (1, UNIT, UNIT)
    with torch.inference_mode():
        hidden = torch.cat([model.hidden(torch.tensor([ids]))[0] for ids in texts])
    wanted = hidden.T @ hidden / len(hidden)
    torch.testing.assert_close(found[EMBEDDING][0, :64, :64], wanted, rtol=1e-4, atol=1e-5)
    assert found[EMBEDDING][0, 64:].eq(0).all()
    assert not model.language_model.norm._forward_hooks
