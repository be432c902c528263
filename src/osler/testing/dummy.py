"""A small tokenizer of Gemma's form, and sizes that go with it."""

import string
from dataclasses import replace

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from osler.models.config import MedGemmaConfig
from osler.preprocess.tokenizer import Tokenizer
from osler.preprocess.tokenizer_files import LibraryBackend
from osler.testing.models import tiny_medgemma

CONTROL_PIECES = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
PLAIN_ADDED_PIECES = ("[multimodal]", *(f"<unused{i}>" for i in range(99)))
TURN_PIECES = ("<start_of_turn>", "<end_of_turn>")
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
LETTERS = ("▁", "\n", *string.digits, *string.ascii_letters, *string.punctuation)
WORDS = ("The", "▁lungs", "▁are", "▁clear", "heart", "▁is", "▁normal")
IMAGE_PIECES = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")


# Words are made letter by letter; their beginnings are pieces too.
MERGES = tuple(
    dict.fromkeys((word[:cut], word[cut]) for word in WORDS for cut in range(1, len(word)))
)
PIECES = (
    *(CONTROL_PIECES + PLAIN_ADDED_PIECES + TURN_PIECES + BYTE_PIECES + LETTERS),
    *(left + right for left, right in MERGES),
    *IMAGE_PIECES,
)


def dummy_tokenizer() -> Tokenizer:
    """A tokenizer with Gemma's ids at the low end; other scripts than Latin it spells in bytes."""
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(PIECES)},
            merges=list(MERGES),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens(
        [AddedToken(p, normalized=False) for p in CONTROL_PIECES + TURN_PIECES + IMAGE_PIECES]
    )
    backend.add_tokens([AddedToken(p, normalized=False) for p in PLAIN_ADDED_PIECES])
    return Tokenizer(LibraryBackend(backend), {}, "dummy")


def dummy_config(max_position_embeddings: int = 1024) -> MedGemmaConfig:
    """Sizes that go with `dummy_tokenizer`."""
    tiny = tiny_medgemma()
    text = replace(
        tiny.text_config,
        vocab_size=len(PIECES),
        max_position_embeddings=max_position_embeddings,
    )
    boi, eoi, soft = (PIECES.index(piece) for piece in IMAGE_PIECES)
    return replace(tiny, text_config=text, boi_token_id=boi, eoi_token_id=eoi, image_token_id=soft)
