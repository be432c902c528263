"""Probes: where they end, and how their penalty is chosen."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from osler.evaluation.linear_probe import FOLDS, STRENGTHS, fit, fit_probe, grouped_folds


@pytest.mark.parametrize("strength", [0.01, 1.0])
@pytest.mark.parametrize("exclusive", [True, False])
def test_the_fit_is_where_the_gradient_is_zero(strength: float, exclusive: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(40, 6, generator=generator), dim=1)
    truth = F.one_hot(torch.arange(40) % 3)
    if not exclusive:
        truth[::4] = 1
    weight, bias = fit(images, truth, strength, exclusive=exclusive)
    # The same objective, written in the space in which the norm is taken.
    x = images.double()
    deviation, mean = x.std(dim=0, correction=0), x.mean(dim=0)
    scaled = (weight.double() * deviation).requires_grad_()
    shifted = (bias.double() + weight.double() @ mean).requires_grad_()
    logits, wanted = (x - mean) / deviation @ scaled.T + shifted, truth.double()
    if exclusive:
        loss = F.cross_entropy(logits, wanted)
    else:
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / 40
    loss = loss + strength / 2 * scaled.square().sum()
    for gradient in torch.autograd.grad(loss, (scaled, shifted)):
        assert gradient.abs().max() < 1e-5
    assert not torch.equal(weight, torch.zeros_like(weight))


def clouds(count: int, distance: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two classes of cases around two points, two cases a group."""
    rng = np.random.default_rng(0)
    column = np.arange(count) // 2 % 2
    inputs = rng.normal(size=(count, 5)).astype(np.float32)
    inputs[:, 0] += distance * column
    return inputs, np.eye(2, dtype=bool)[column], [f"group-{i // 2}" for i in range(count)]


def test_clear_classes_are_told_apart_and_noise_is_held_down() -> None:
    inputs, truth, groups = clouds(80, distance=6.0)
    probe = fit_probe(inputs, truth, groups)
    told = probe.probabilities(inputs)
    assert (told.argmax(axis=1) == truth.argmax(axis=1)).all()
    np.testing.assert_allclose(told.sum(axis=1), 1)
    noise = fit_probe(*clouds(80, distance=0.0))
    assert noise.strength == max(STRENGTHS) > probe.strength


def test_labels_that_do_not_exclude_each_other_have_their_own_probabilities() -> None:
    inputs, truth, groups = clouds(60, distance=6.0)
    truth[:, 1] = True
    told = fit_probe(inputs, truth, groups, exclusive=False).probabilities(inputs)
    assert (told[:, 1] > 0.9).all()
    assert ((told[:, 0] > 0.5) == truth[:, 0]).all()


def test_groups_stay_whole_and_classes_are_dealt_evenly() -> None:
    _, truth, groups = clouds(80, distance=0.0)
    folds = grouped_folds(truth, groups)
    assert set(folds) == set(range(FOLDS))
    assert (folds[::2] == folds[1::2]).all()
    for fold in range(FOLDS):
        assert truth[folds == fold].sum(axis=0).tolist() == [8, 8]
    assert folds.tolist() != grouped_folds(truth, groups, seed=1).tolist()


def test_one_group_alone_is_fitted_with_the_strongest_penalty() -> None:
    inputs, truth, _ = clouds(8, distance=1.0)
    assert fit_probe(inputs, truth, ["one"] * 8).strength == max(STRENGTHS)
