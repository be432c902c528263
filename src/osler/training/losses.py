"""The losses of the recipe, none of which ever holds a whole matrix of scores.

Both are sums of many small questions. What a block of them adds to the loss and to the gradients
is known as soon as its scores are, so that a block is computed, used for both, and forgotten: as
many multiplications as the plain loss, memory of one block.

Shapes: N images, M texts, D embedding size, K what is known of an image (or tokens of a teacher),
L positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

_NOTHING = -1
_CACHED_SCORES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Truths:
    """Which texts are true of which images, in numbers instead of a matrix.

    Attributes:
        of_images_NK: int64, the numbers of all that is true of an image; -1 fills up.
        of_texts_M: int64, the number of what a text tells.
    """

    of_images_NK: Tensor
    of_texts_M: Tensor


def truths(image_keys: Sequence[str], text_keys: Sequence[str]) -> Truths:
    """Number class paths: a text is true of every image whose path begins with the text's.

    The numbers are hashes of the paths, the same on every rank.

    Args:
        image_keys: as "CR/CHEST/cxr_kermany/normal", N of them.
        text_keys: as "CR/CHEST", M of them.
    """
    beginnings = []
    for key in image_keys:
        steps = key.split("/")
        beginnings.append([_number("/".join(steps[: i + 1])) for i in range(len(steps))])
    longest = max(map(len, beginnings))
    filled = [row + [_NOTHING] * (longest - len(row)) for row in beginnings]
    return Truths(
        of_images_NK=torch.tensor(filled),
        of_texts_M=torch.tensor([_number(key) for key in text_keys]),
    )


def pair_loss(
    images_ND: Tensor,
    texts_MD: Tensor,
    scale: Tensor,
    bias: Tensor,
    known: Truths | None = None,
    *,
    block: int = 4096,
    group: "dist.ProcessGroup | None" = None,
) -> Tensor:
    """`models.medsiglip.sigmoid_loss` of `MedSiglip.logits`, in blocks and across ranks.

    Across ranks the texts go round a ring, their gradients with them, so that every image meets
    the texts of all ranks and no rank holds more than its own and one other's.

    Args:
        images_ND: unit vectors of this rank's images.
        texts_MD: unit vectors of this rank's texts; as many on every rank.
        scale: what cosines are multiplied by, (1,).
        bias: what is added, (1,).
        known: which belong together; None for image i and text i of the same rank.
        block: images and texts whose scores are in memory at once.
        group: the ranks; None for this process alone.

    Returns:
        Scalar: the sum over all texts, averaged over this rank's images. Its mean over the ranks
        is the loss of the whole batch, and the mean of the ranks' gradients, as DDP and FSDP take
        it, is that loss's gradient.

    Source: SigLIP (arXiv 2303.15343), equation 1 and section 3.3.
    """
    if known is None:
        own = torch.arange(len(images_ND), device=images_ND.device)
        if group is not None:
            own = own + dist.get_rank(group) * len(own)
        known = Truths(of_images_NK=own[:, None], of_texts_M=own)
    vectors = [
        tensor.float() if tensor.itemsize < 4 else tensor for tensor in (images_ND, texts_MD)
    ]
    differentiable = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (*vectors, scale, bias)
    )
    apply: Any = _PairLoss.apply  # without types
    loss: Tensor = apply(*vectors, scale, bias, known, block, group, differentiable)
    return loss


def token_cross_entropy(
    x_LD: Tensor, weight_VD: Tensor, ids_L: Tensor, *, chunk: int = 1024
) -> Tensor:
    """Cross-entropy of next tokens, summed, with scores of a few positions at a time.

    Args:
        x_LD: hidden states after the final norm, of the positions to be learnt only.
        weight_VD: the head.
        ids_L: int64, what comes next at each.
        chunk: positions whose scores are in memory at once.

    Returns:
        Scalar: a sum, as the tokens it is to be divided by may lie on several ranks.
    """
    ones_L1 = torch.ones_like(ids_L[:, None], dtype=torch.float)
    return _soft_cross_entropy(x_LD, weight_VD, ids_L[:, None], ones_L1, chunk)


def distillation_loss(
    x_LD: Tensor,
    weight_VD: Tensor,
    teacher_ids_LK: Tensor,
    teacher_logits_LK: Tensor,
    *,
    chunk: int = 1024,
) -> Tensor:
    """How far a student is from its teacher's renormalised sample, summed over positions.

    The teacher's other tokens count as impossible, the student's share of them does not.

    Args:
        x_LD: the student's hidden states after the final norm.
        weight_VD: the student's head.
        teacher_ids_LK: int64, the tokens that were kept of the teacher's scores.
        teacher_logits_LK: their scores, up to a constant a position; minus infinity for none.
        chunk: positions whose scores are in memory at once.

    Returns:
        Scalar: the sum of Kullback-Leibler divergences, teacher from student, in nats.

    Source: Gemma 3 (arXiv 2503.19786), section 2.2.
    """
    share_LK = teacher_logits_LK.to(_wide(x_LD)).softmax(dim=-1)
    surprise = _soft_cross_entropy(x_LD, weight_VD, teacher_ids_LK, share_LK, chunk)
    entropy: Tensor = torch.special.entr(share_LK).sum()
    return surprise - entropy


def sample_logits(
    logits_LV: Tensor, count: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Keep a few of a teacher's scores at every position.

    Args:
        logits_LV: all of them.
        count: how many to keep; all where there are no more.
        generator: draws them without replacement by their probability; None keeps the highest.

    Returns:
        Token ids, int64 (L, K), and their scores (L, K), the highest first.

    Source: Gemma 3, section 2.2; drawing by Gumbel noise: Kool et al. (arXiv 1903.06059).
    """
    count = min(count, logits_LV.shape[-1])
    order_LV = logits_LV.float()
    if generator is not None:
        noise_LV = torch.empty_like(order_LV).exponential_(generator=generator)
        order_LV = order_LV - noise_LV.log()
    ids_LK = order_LV.topk(count, dim=-1).indices
    kept_LK = logits_LV.gather(-1, ids_LK)
    order_LK = kept_LK.argsort(dim=-1, descending=True, stable=True)
    return ids_LK.gather(-1, order_LK), kept_LK.gather(-1, order_LK)


def token_logprobs(x_LD: Tensor, weight_VD: Tensor, ids_L: Tensor, *, chunk: int = 1024) -> Tensor:
    """Log-probabilities (L,) of tokens, with scores of a few positions at a time, twice computed.

    Args:
        x_LD: hidden states after the final norm, each before the token asked for.
        weight_VD: the head.
        ids_L: int64 tokens.
        chunk: positions whose scores are in memory at once.
    """

    def of_chunk(x_CD: Tensor, ids_C: Tensor) -> Tensor:
        logits_CV = F.linear(x_CD, weight_VD)
        logits_CV = logits_CV.to(_wide(logits_CV))
        scores_C: Tensor = logits_CV.gather(1, ids_C[:, None])[:, 0] - logits_CV.logsumexp(dim=1)
        return scores_C

    parts: list[Tensor] = [
        checkpoint(of_chunk, x_CD, ids_C, use_reentrant=False)
        for x_CD, ids_C in zip(x_LD.split(chunk), ids_L.split(chunk), strict=True)
    ]
    return torch.cat(parts)


class _Sums(NamedTuple):
    """What blocks have added to a pair loss so far; gradients are None where none is wanted."""

    loss: Tensor
    images_ND: Tensor | None
    scale: Tensor
    bias: Tensor


class _PairLoss(torch.autograd.Function):
    """Computes the gradients with the loss; going backwards only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        images_ND: Tensor,
        texts_MD: Tensor,
        scale: Tensor,
        bias: Tensor,
        known: Truths,
        block: int,
        group: "dist.ProcessGroup | None",
        differentiable: bool,
    ) -> Tensor:
        zero = torch.zeros((), dtype=torch.float64, device=images_ND.device)
        grad_ND = torch.zeros_like(images_ND) if differentiable else None
        sums = _Sums(zero, grad_ND, zero.clone(), zero.clone())
        # What travels: texts, and what has been gathered of their gradients.
        travel_2MD = torch.stack([texts_MD, torch.zeros_like(texts_MD)])
        told_M = known.of_texts_M
        ranks = 1 if group is None else dist.get_world_size(group)
        with torch.autocast(images_ND.device.type, enabled=False):
            for _ in range(ranks):
                held = Truths(of_images_NK=known.of_images_NK, of_texts_M=told_M)
                sums = _add_pairs(sums, images_ND, travel_2MD, scale, bias, held, block)
                if group is not None:
                    travel_2MD, told_M = _pass_on(travel_2MD, told_M, group)
        images = len(images_ND)
        if sums.images_ND is not None:
            ctx.save_for_backward(
                sums.images_ND / images,
                travel_2MD[1] / images,
                (sums.scale / images).to(scale.dtype).view_as(scale),
                (sums.bias / images).to(bias.dtype).view_as(bias),
            )
        return (sums.loss / images).to(images_ND.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(grad * saved for saved in ctx.saved_tensors), None, None, None, None


def _add_pairs(
    sums: _Sums,
    images_ND: Tensor,
    texts_2MD: Tensor,
    scale: Tensor,
    bias: Tensor,
    known: Truths,
    block: int,
) -> _Sums:
    """Let images meet the texts that are here; `texts_2MD[1]` takes the texts' gradients."""
    loss, grad_ND, scale_grad, bias_grad = sums
    for top in range(0, len(images_ND), block):
        rows = slice(top, top + block)
        for left in range(0, texts_2MD.shape[1], block):
            columns = slice(left, left + block)
            text_BD = texts_2MD[0, columns]
            cosine_BB = images_ND[rows] @ text_BD.T
            match_BB = torch.zeros_like(cosine_BB, dtype=torch.bool)
            for true_B in known.of_images_NK[rows].unbind(dim=1):
                match_BB |= true_B[:, None] == known.of_texts_M[columns]
            label_BB = torch.where(match_BB, 1.0, -1.0).to(cosine_BB.dtype)
            right_BB = label_BB * (cosine_BB * scale + bias)
            loss = loss - F.logsigmoid(right_BB).sum(dtype=torch.float64)
            if grad_ND is None:
                continue
            slope_BB = -label_BB * torch.sigmoid(-right_BB)
            grad_ND[rows] += slope_BB @ text_BD * scale
            texts_2MD[1, columns] += slope_BB.T @ images_ND[rows] * scale
            scale_grad = scale_grad + (slope_BB * cosine_BB).sum(dtype=torch.float64)
            bias_grad = bias_grad + slope_BB.sum(dtype=torch.float64)
    return _Sums(loss, grad_ND, scale_grad, bias_grad)


def _pass_on(
    travel_2MD: Tensor, told_M: Tensor, group: "dist.ProcessGroup"
) -> tuple[Tensor, Tensor]:
    """Give the rank before what is here, and take what the rank behind has."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    before = dist.get_global_rank(group, (rank - 1) % ranks)
    behind = dist.get_global_rank(group, (rank + 1) % ranks)
    sent = [travel_2MD, told_M.contiguous()]
    taken = [torch.empty_like(tensor) for tensor in sent]
    jobs = [dist.P2POp(dist.isend, tensor, before, group) for tensor in sent]
    jobs += [dist.P2POp(dist.irecv, tensor, behind, group) for tensor in taken]
    for job in dist.batch_isend_irecv(jobs):
        job.wait()
    return taken[0], taken[1]


def _soft_cross_entropy(
    x_LD: Tensor, weight_VD: Tensor, ids_LK: Tensor, share_LK: Tensor, chunk: int
) -> Tensor:
    """Sum of cross-entropies to targets that are spread over a few tokens."""
    device = x_LD.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x_LD, weight_VD = x_LD.to(dtype), weight_VD.to(dtype)
    differentiable = torch.is_grad_enabled() and (x_LD.requires_grad or weight_VD.requires_grad)
    apply: Any = _SoftCrossEntropy.apply  # without types
    loss: Tensor = apply(x_LD, weight_VD, ids_LK, share_LK, chunk, differentiable)
    return loss


class _SoftCrossEntropy(torch.autograd.Function):
    """Computes the gradients with the loss; going backwards only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        x_LD: Tensor,
        weight_VD: Tensor,
        ids_LK: Tensor,
        share_LK: Tensor,
        chunk: int,
        differentiable: bool,
    ) -> Tensor:
        wide = _wide(x_LD)
        loss = torch.zeros((), dtype=torch.float64, device=x_LD.device)
        x_grads: list[Tensor] = []
        weight_grad_VD = None
        if differentiable and ctx.needs_input_grad[1]:  # not where the head rests
            weight_grad_VD = torch.zeros_like(weight_VD, dtype=wide)
        with torch.autocast(x_LD.device.type, enabled=False):
            for x_CD, ids_CK, share_CK in zip(
                x_LD.split(chunk), ids_LK.split(chunk), share_LK.split(chunk), strict=True
            ):
                scores_CV = F.linear(x_CD, weight_VD)
                rows = _rows_at_once(scores_CV)
                for scores, ids, share in zip(
                    scores_CV.split(rows), ids_CK.split(rows), share_CK.split(rows), strict=True
                ):
                    logprobs, share = scores.to(wide), share.to(wide)
                    logprobs -= logprobs.logsumexp(dim=1, keepdim=True)
                    loss -= (share * logprobs.gather(1, ids)).sum(dtype=torch.float64)
                    if differentiable:  # the scores give way to their slopes
                        slopes = logprobs.exp_().mul_(share.sum(dim=1, keepdim=True))
                        scores.copy_(slopes.scatter_add_(1, ids, -share))
                if not differentiable:
                    continue
                x_grads.append(scores_CV @ weight_VD)
                if weight_grad_VD is not None:
                    weight_grad_VD += scores_CV.T @ x_CD
        if differentiable:
            x_grad_LD = torch.cat(x_grads) if x_grads else torch.zeros_like(x_LD)
            weight_grad = None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype)
            ctx.save_for_backward(x_grad_LD, weight_grad)
        return loss.to(wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_grad_LD, weight_grad_VD = (
            None if saved is None else grad.to(saved.dtype) * saved for saved in ctx.saved_tensors
        )
        return x_grad_LD, weight_grad_VD, *[None] * 4


def _rows_at_once(scores_CV: Tensor) -> int:
    """Rows that a CPU's cache holds in float32, so that each pass over them is short."""
    if scores_CV.device.type != "cpu":
        return max(1, len(scores_CV))
    return max(1, _CACHED_SCORES // scores_CV.shape[1])


def _wide(tensor: Tensor) -> torch.dtype:
    """The type that scores are summed in: float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _number(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 1
