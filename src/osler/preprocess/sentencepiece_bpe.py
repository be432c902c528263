"""A sentencepiece model of Gemma's kind as a tokenizer of merges.

Sentencepiece joins the two neighbours that make the piece of the highest score. Listing, for each
piece, the pairs that make it, by falling score, says the same in merges.
"""

from collections.abc import Mapping, Sequence
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
    indices = range(model.get_piece_size())
    tokenizer = scored_bpe(
        [model.id_to_piece(index) for index in indices],
        [model.get_score(index) for index in indices],
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


def scored_bpe(pieces: Sequence[str], scores: Sequence[float]) -> tokenizers.Tokenizer:
    """Make a tokenizer of pieces with scores; none of them is found in text before all else.

    Args:
        pieces: of the vocabulary, by id.
        scores: of each.

    Raises:
        ValueError: a piece that is there twice.
    """
    vocab = {piece: index for index, piece in enumerate(pieces)}
    if len(vocab) < len(pieces):
        raise ValueError("a piece is in the vocabulary twice")
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=_merges(vocab, dict(zip(pieces, scores, strict=True))),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
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
