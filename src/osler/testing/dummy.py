"""A model that says what it is told to, and a small tokenizer of Gemma's form.

Shapes: B batch, L positions, N images, C channels, S image side, T tokens an image, D hidden_size,
V vocabulary.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers
from torch import Tensor

from osler.models.config import MedGemmaConfig
from osler.preprocess.tokenizer import Tokenizer
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
    return Tokenizer(backend, {}, "dummy")


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


@dataclass
class DummyCache:
    """Which scripts are being read, and how far."""

    rows: list[int]
    step: int = 0

    def keep_rows(self, rows: Tensor) -> None:
        """Drop every script but `rows`."""
        self.rows = [self.rows[row] for row in rows.tolist()]


@dataclass
class ScriptedRunner:
    """A runner whose row i prefers the ids of `scripts[i]`, then the end token.

    Attributes:
        scripts: what each row says.
        config: its sizes.
        batch_sizes: rows of each forward call so far.
        images_at_once: images of each embedding call so far.
    """

    scripts: Sequence[Sequence[int]]
    config: MedGemmaConfig = field(default_factory=dummy_config)
    batch_sizes: list[int] = field(default_factory=list)
    images_at_once: list[int] = field(default_factory=list)

    def new_cache(self, batch_size: int) -> DummyCache:
        """A cache at the beginning of the scripts."""
        return DummyCache(rows=list(range(batch_size)))

    def embed_images(self, pixels_NCSS: Tensor) -> Tensor:
        """Zeros."""
        self.images_at_once.append(len(pixels_NCSS))
        text = self.config.text_config
        return torch.zeros(len(pixels_NCSS), self.config.mm_tokens_per_image, text.hidden_size)

    def forward(
        self,
        ids_BL: Tensor,
        *,
        cache: DummyCache,
        soft_NTD: Tensor | None = None,
        attention_mask_BL: Tensor | None = None,
    ) -> Tensor:
        """Logits with one high value a row."""
        self.batch_sizes.append(len(ids_BL))
        logits_BV = torch.zeros(len(ids_BL), self.config.text_config.vocab_size)
        for logits_V, row in zip(logits_BV, cache.rows, strict=True):
            script = [*self.scripts[row], self.config.eos_token_ids[0]]
            logits_V[script[min(cache.step, len(script) - 1)]] = 20.0
        cache.step += 1
        return logits_BV
