"""Losses in blocks are the plain losses, in value and gradient."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from osler.models.medsiglip import sigmoid_loss
from osler.testing.packs import one_of_each_class
from osler.training.captions import class_key, is_true_of
from osler.training.losses import (
    Truths,
    distillation_loss,
    pair_loss,
    sample_logits,
    token_cross_entropy,
    token_logprobs,
    truths,
)

EXACT = {torch.float32: 1e-6, torch.float64: 1e-12}


def pair(
    images: int, texts: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit vectors, a scale and a bias, all of which learn."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        F.normalize(torch.randn(count, 16, generator=generator, dtype=torch.float64), dim=-1)
        for count in (images, texts)
    ]
    tensors = [*drawn, torch.tensor([8.0]), torch.tensor([-3.0])]
    one, other, scale, bias = (tensor.to(dtype).requires_grad_() for tensor in tensors)
    return one, other, scale, bias


def gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tensors))


def assert_same(
    found: list[Tensor], wanted: list[Tensor], dtype: torch.dtype, factor: float = 1.0
) -> None:
    for one, other in zip(found, wanted, strict=True):
        tolerance = EXACT[dtype] * factor
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("block", [1, 5, 8, 64])
def test_the_pair_loss_in_blocks_is_the_plain_one(dtype: torch.dtype, block: int) -> None:
    tensors = pair(13, 13, dtype)
    images, texts, scale, bias = tensors
    plain = sigmoid_loss(images @ texts.T * scale + bias)
    ours = pair_loss(*tensors, block=block)
    assert_same(
        [ours, *gradients(ours * 3, *tensors)], [plain, *gradients(plain * 3, *tensors)], dtype
    )


@pytest.mark.parametrize("dtype", EXACT)
def test_several_texts_may_be_true_of_an_image(dtype: torch.dtype) -> None:
    items = one_of_each_class()
    keys = [class_key(item) for item in items]
    told = [*keys[::2], *(key.rpartition("/")[0] for key in keys[::3]), "CR/CHEST", "CR/CHE"]
    match = torch.tensor([[is_true_of(text, key) for text in told] for key in keys])
    assert match.any(dim=1).sum() > 5
    assert match.sum(dim=0).max() > 1, "no text is true of several images"
    assert not match[:, -1].any()
    tensors = pair(len(keys), len(told), dtype)
    images, texts, scale, bias = tensors
    plain = sigmoid_loss(images @ texts.T * scale + bias, match)
    ours = pair_loss(*tensors, truths(keys, told), block=7)
    assert_same([ours, *gradients(ours, *tensors)], [plain, *gradients(plain, *tensors)], dtype)


def test_what_fills_up_matches_nothing() -> None:
    images, texts, scale, bias = pair(2, 2, torch.float64)
    known = truths(["a", "a/b"], ["a/b", "c"])
    match = torch.tensor([[False, False], [True, False]])
    plain = sigmoid_loss(images @ texts.T * scale + bias, match)
    torch.testing.assert_close(pair_loss(images, texts, scale, bias, known), plain)


def test_embeddings_that_rest_get_no_gradient_and_half_precision_is_widened() -> None:
    images, texts, scale, bias = pair(6, 6, torch.float32)
    rest = images.detach()
    loss = pair_loss(rest, texts, scale, bias, block=4)
    loss.backward()
    assert rest.grad is None
    assert texts.grad is not None
    with torch.no_grad():
        assert pair_loss(rest, texts, scale, bias, block=4) == loss
        assert pair_loss(rest.bfloat16(), texts, scale, bias).dtype == torch.float32


def test_memory_is_that_of_a_block() -> None:
    seen: list[int] = []
    original = F.logsigmoid

    def noted(scores: Tensor) -> Tensor:
        seen.append(scores.numel())
        return original(scores)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "logsigmoid", noted)
        pair_loss(*pair(40, 30, torch.float32), some_truths(40, 30), block=8)
    assert max(seen) == 64
    assert sum(seen) == 40 * 30


def some_truths(images: int, texts: int) -> Truths:
    return Truths(
        of_images_NK=torch.arange(images)[:, None] // 2, of_texts_M=torch.arange(texts) // 3
    )


def _on_rank(rank: int, folder: str, known: bool) -> None:
    """One of two processes, with half of the images and of the texts."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    whole = [tensor.detach() for tensor in pair(10, 10, torch.float64)]
    half = slice(5 * rank, 5 * rank + 5)
    images, texts = (tensor[half].clone().requires_grad_() for tensor in whole[:2])
    scale, bias = (tensor.clone().requires_grad_() for tensor in whole[2:])
    all_known = some_truths(10, 10)
    own = Truths(of_images_NK=all_known.of_images_NK[half], of_texts_M=all_known.of_texts_M[half])
    loss = pair_loss(
        images, texts, scale, bias, own if known else None, block=2, group=dist.group.WORLD
    )
    loss.backward()
    found = [loss.detach(), images.grad, texts.grad, scale.grad, bias.grad]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("known", [False, True])
def test_two_ranks_are_one(tmp_path: Path, known: bool) -> None:
    spawn(_on_rank, (str(tmp_path), known), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    tensors = pair(10, 10, torch.float64)
    whole = pair_loss(*tensors, some_truths(10, 10) if known else None)
    wanted = [whole, *gradients(whole, *tensors)]
    # As DDP does: every rank's gradients are halved and summed.
    found = [
        (first[0] + second[0]) / 2,
        torch.cat([first[1], second[1]]) / 2,
        torch.cat([first[2], second[2]]) / 2,
        (first[3] + second[3]) / 2,
        (first[4] + second[4]) / 2,
    ]
    assert_same(found, wanted, torch.float64)


def decoder(dtype: torch.dtype, positions: int = 11, vocabulary: int = 23) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, weight = (
        torch.randn(count, 8, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for count in (positions, vocabulary)
    )
    return x, weight


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_cross_entropy_in_chunks_is_the_plain_one(dtype: torch.dtype, chunk: int) -> None:
    x, weight = decoder(dtype)
    ids = torch.arange(11) * 2
    mask = torch.arange(11) % 3 != 0
    plain = F.cross_entropy((x @ weight.T)[mask], ids[mask], reduction="sum")
    ours = token_cross_entropy(x[mask], weight, ids[mask], chunk=chunk)
    # A sum of seven values: the bound is relative.
    assert_same(
        [ours, *gradients(ours * 2, x, weight)],
        [plain, *gradients(plain * 2, x, weight)],
        dtype,
        factor=4,
    )


def test_the_rows_that_a_cache_holds_are_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = decoder(torch.float64)
    ids = torch.arange(11)
    monkeypatch.setattr("osler.training.losses._CACHED_SCORES", 3 * len(weight))
    ours = token_cross_entropy(x, weight, ids, chunk=8)
    plain = F.cross_entropy(x @ weight.T, ids, reduction="sum")
    assert_same(
        [ours, *gradients(ours, x, weight)],
        [plain, *gradients(plain, x, weight)],
        torch.float64,
        factor=4,
    )


def test_nothing_to_learn_costs_nothing() -> None:
    x, weight = decoder(torch.float32)
    loss = token_cross_entropy(x[:0], weight, torch.zeros(0, dtype=torch.long))
    assert loss == 0
    assert not any(grad.any() for grad in gradients(loss, x, weight))


def test_cross_entropy_under_autocast_is_the_plain_one_in_bfloat16() -> None:
    x, weight = decoder(torch.float32)
    ids = torch.arange(11)
    with torch.autocast("cpu", torch.bfloat16):
        plain = F.cross_entropy(F.linear(x, weight).float(), ids, reduction="sum")
        ours = token_cross_entropy(x, weight, ids, chunk=4)
    torch.testing.assert_close(ours, plain)
    for found, wanted in zip(gradients(ours, x, weight), gradients(plain, x, weight), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)


def test_a_head_that_rests_gets_no_gradient_and_none_is_kept_for_it() -> None:
    x, weight = decoder(torch.float32)
    ids = torch.arange(11)
    (wanted,) = gradients(token_cross_entropy(x, weight, ids), x)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = token_cross_entropy(x, weight.detach(), ids)
    assert all(tensor.shape != weight.shape for tensor in kept)
    assert torch.equal(gradients(loss, x)[0], wanted)


def dense_distillation(logits: Tensor, teacher: Tensor, ids: Tensor) -> Tensor:
    """The whole of both distributions, what was not kept set to zero."""
    kept = torch.zeros_like(teacher).scatter(1, ids, 1.0)
    share = teacher.softmax(dim=1) * kept
    share = share / share.sum(dim=1, keepdim=True)
    return F.kl_div(logits.log_softmax(dim=1), share, reduction="sum")


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("count", [1, 6, 23])
@pytest.mark.parametrize("drawn", [False, True])
def test_distillation_is_the_dense_divergence(dtype: torch.dtype, count: int, drawn: bool) -> None:
    x, weight = decoder(dtype)
    teacher = torch.randn(11, 23, generator=torch.Generator().manual_seed(2)).to(dtype) * 2
    generator = torch.Generator().manual_seed(3) if drawn else None
    ids, kept = sample_logits(teacher, count, generator)
    dense = dense_distillation(x @ weight.T, teacher, ids)
    ours = distillation_loss(x, weight, ids, kept + 5.0, chunk=4)
    assert_same(
        [ours, *gradients(ours, x, weight)],
        [dense, *gradients(dense, x, weight)],
        dtype,
        factor=10,
    )


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    x, weight = decoder(torch.float64)
    ids, kept = sample_logits((x @ weight.T).detach(), 23)
    loss = distillation_loss(x, weight, ids, kept)
    assert abs(loss) < 1e-12
    assert all(grad.abs().max() < 1e-12 for grad in gradients(loss, x, weight))


def test_a_place_without_a_token_counts_for_nothing() -> None:
    x, weight = decoder(torch.float64)
    ids, kept = sample_logits((x @ weight.T).detach().roll(1, 0), 4)
    none = torch.full_like(kept[:, :1], -torch.inf)
    padded = distillation_loss(
        x, weight, torch.cat([ids, ids[:, :1]], dim=1), torch.cat([kept, none], dim=1)
    )
    torch.testing.assert_close(padded, distillation_loss(x, weight, ids, kept))


def test_the_highest_scores_are_kept_or_such_as_are_probable() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.0, -20.0, 3.0]]).expand(400, -1)
    ids, kept = sample_logits(logits, 3)
    assert ids[0].tolist() == [1, 2, 4]
    assert kept[0].tolist() == [5.0, 4.0, 3.0]
    ids, kept = sample_logits(logits, 1, torch.Generator().manual_seed(0))
    shares = torch.bincount(ids.flatten(), minlength=5) / 400
    torch.testing.assert_close(shares, logits[0].softmax(0), rtol=0, atol=0.06)
    ids, _ = sample_logits(logits, 4, torch.Generator().manual_seed(0))
    assert ids.sort(dim=1).values.tolist() == [[0, 1, 2, 4]] * 400, "one twice, or the impossible"


@pytest.mark.parametrize("dtype", EXACT)
def test_logprobs_in_chunks_are_the_plain_ones(dtype: torch.dtype) -> None:
    x, weight = decoder(dtype)
    ids = torch.arange(11)
    plain = (x @ weight.T).log_softmax(dim=1)[torch.arange(11), ids]
    ours = token_logprobs(x, weight, ids, chunk=4)
    factors = torch.linspace(-1, 2, 11, dtype=dtype)
    assert_same(
        [ours, *gradients(ours @ factors, x, weight)],
        [plain, *gradients(plain @ factors, x, weight)],
        dtype,
        factor=4,
    )
