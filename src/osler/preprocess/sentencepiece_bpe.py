"""A sentencepiece model of Gemma's kind as a tokenizer of merges.

Sentencepiece joins the two neighbours that make the piece of the highest score. Listing, for each
piece, the pairs that make it, by falling score, says the same in merges.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from osler.errors import CheckpointError
from osler.preprocess.sentencepiece_file import open_sentencepiece


def read_sentencepiece_bpe(path: Path, names: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Read `tokenizer.model`.

    Args:
        path: the file.
        names: `tokenizer_config.json`, whose `added_tokens_decoder` says which pieces are found in
            text before all else, and adds those that the model does not have.

    Raises:
        CheckpointError: a broken file, or added tokens that are missing or do not fit.
    """
    model = open_sentencepiece(path)
    vocab = {model.id_to_piece(index): index for index in range(model.get_piece_size())}
    scores = {piece: model.get_score(index) for piece, index in vocab.items()}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=_merges(vocab, scores),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    added = names.get("added_tokens_decoder")
    if not isinstance(added, dict):
        raise CheckpointError(f"{path}: needs added_tokens_decoder in tokenizer_config.json")
    try:
        tokens = [(int(index), AddedToken(**token)) for index, token in added.items()]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: added_tokens_decoder is broken ({error})") from error
    for index, token in sorted(tokens, key=lambda entry: entry[0]):
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token.content) != index:
            raise CheckpointError(f"{path}: added token {token.content!r} cannot have id {index}")
    return tokenizer


def _merges(vocab: Mapping[str, int], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    scored = []
    for piece, score in scores.items():
        pairs = [
            (vocab[piece[:cut]], vocab[piece[cut:]], piece[:cut], piece[cut:])
            for cut in range(1, len(piece))
            if piece[:cut] in vocab and piece[cut:] in vocab
        ]
        scored += [(score, left, right) for _, _, left, right in sorted(pairs)]
    # Stable: pairs that make the same piece stay in the order of their ids.
    scored.sort(key=lambda merge: -merge[0])
    return [(left, right) for _, left, right in scored]
