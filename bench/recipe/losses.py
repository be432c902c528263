"""What a decoder's loss is on each of some sequences.

Shapes: B sequences, L positions, T tokens to be learnt, N all sequences.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from bench.recipe.figures import Losses
from osler.models.medgemma import MedGemma
from osler.training.decoder import Batch, read
from osler.training.losses import token_logprobs


@torch.no_grad()
def sequence_losses(model: MedGemma, batches: Sequence[Batch], says: str) -> Losses:
    """Sum of the losses of each sequence's tokens, in nats, and how many tokens these are, (N,)."""
    model.eval()
    sums, tokens = [], []
    for batch in tqdm(batches, desc=says):
        learn_BL, ids_BL = batch.learn_BL[:, 1:], batch.ids_BL[:, 1:]
        head_VD = model.language_model.embed_tokens.weight
        x_TD = read(model, batch)[learn_BL]
        surprise_T = -token_logprobs(x_TD, head_VD, ids_BL[learn_BL])
        row_T = learn_BL.nonzero()[:, 0]
        sums.append(torch.zeros(len(ids_BL)).index_add_(0, row_T, surprise_T.float()))
        tokens.append(learn_BL.sum(dim=1).float())
    return (
        torch.cat(sums).numpy().astype(np.float64),
        torch.cat(tokens).numpy().astype(np.float64),
    )
