"""Sizes of every model in the family, under their Hugging Face names.

Numbers: Gemma 3 and MedGemma technical reports (arXiv 2503.19786, 2507.05201, 2604.05081) and the
released `config.json` files. A variant is a named function; nothing here knows of files.
"""

from dataclasses import dataclass, field
from typing import Protocol

SLIDING = "sliding_attention"
FULL = "full_attention"


def layer_pattern(num_hidden_layers: int, sliding_window_pattern: int = 6) -> tuple[str, ...]:
    """The kind of each layer: every `sliding_window_pattern`-th one is global.

    >>> layer_pattern(7)[4:]
    ('sliding_attention', 'full_attention', 'sliding_attention')
    """
    return tuple(
        SLIDING if (i + 1) % sliding_window_pattern else FULL for i in range(num_hidden_layers)
    )


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The Gemma 3 decoder.

    Raises:
        ValueError: heads that do not divide, an odd head size, or a layer list of another length.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    query_pre_attn_scalar: float
    vocab_size: int = 262_208
    sliding_window: int = 1024
    layer_types: tuple[str, ...] = ()
    max_position_embeddings: int = 131_072
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    rope_local_base_freq: float = 10_000.0
    rope_scaling_factor: float = 8.0

    def __post_init__(self) -> None:
        if not self.layer_types:
            object.__setattr__(self, "layer_types", layer_pattern(self.num_hidden_layers))
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types has {len(self.layer_types)} entries for "
                f"{self.num_hidden_layers} layers"
            )
        if unknown := set(self.layer_types) - {SLIDING, FULL}:
            raise ValueError(f"layer_types holds unknown kinds: {sorted(unknown)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary embedding needs pairs")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A SigLIP vision encoder.

    Raises:
        ValueError: heads or patches that do not divide.
    """

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    image_size: int = 896
    patch_size: int = 14
    num_channels: int = 3
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, kw_only=True)
class SiglipTextConfig:
    """A SigLIP text encoder; texts are padded to `max_position_embeddings`.

    Raises:
        ValueError: heads that do not divide.
    """

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    vocab_size: int = 32_000
    max_position_embeddings: int = 64
    projection_size: int = 1152
    layer_norm_eps: float = 1e-6
    pad_token_id: int = 1

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )


class EncoderSizes(Protocol):
    """What both towers' configurations have."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def layer_norm_eps(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class MedGemmaConfig:
    """A decoder with, for the multimodal ones, a vision tower and its projector.

    Raises:
        ValueError: an image grid that does not pool evenly to `mm_tokens_per_image`.
    """

    text_config: TextConfig
    vision_config: VisionConfig | None = None
    mm_tokens_per_image: int = 256
    image_token_id: int = 262_144
    boi_token_id: int = 255_999
    eoi_token_id: int = 256_000
    bos_token_id: int = 2
    pad_token_id: int = 0
    eos_token_ids: tuple[int, ...] = (1, 106)
    medgemma_version: str = "1"

    def __post_init__(self) -> None:
        if self.medgemma_version not in ("1", "1.5"):
            raise ValueError(f"medgemma_version is {self.medgemma_version!r}, not '1' or '1.5'")
        if self.vision_config is None:
            return
        side = round(self.mm_tokens_per_image**0.5)
        grid = self.vision_config.grid
        if side * side != self.mm_tokens_per_image or grid % side:
            raise ValueError(
                f"a {grid} x {grid} grid does not pool to {self.mm_tokens_per_image} tokens"
            )


@dataclass(frozen=True, kw_only=True)
class MedSiglipConfig:
    """The image-text encoder pair.

    Raises:
        ValueError: towers whose embeddings have different sizes.
    """

    text_config: SiglipTextConfig = field(default_factory=SiglipTextConfig)
    vision_config: VisionConfig = field(default_factory=lambda: VisionConfig(image_size=448))

    def __post_init__(self) -> None:
        if self.text_config.projection_size != self.vision_config.hidden_size:
            raise ValueError(
                f"text projection_size {self.text_config.projection_size} differs from vision "
                f"hidden_size {self.vision_config.hidden_size}"
            )


def _text_27b() -> TextConfig:
    return TextConfig(
        hidden_size=5376,
        intermediate_size=21_504,
        num_hidden_layers=62,
        num_attention_heads=32,
        num_key_value_heads=16,
        head_dim=128,
        query_pre_attn_scalar=168,
    )


def medgemma_4b() -> MedGemmaConfig:
    """MedGemma 4B multimodal (google/medgemma-4b-it and -pt, medgemma-1.5-4b-it)."""
    text = TextConfig(
        hidden_size=2560,
        intermediate_size=10_240,
        num_hidden_layers=34,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
    )
    return MedGemmaConfig(text_config=text, vision_config=VisionConfig())


def medgemma_27b_text() -> MedGemmaConfig:
    """MedGemma 27B for text (google/medgemma-27b-text-it)."""
    return MedGemmaConfig(text_config=_text_27b())


def medgemma_27b() -> MedGemmaConfig:
    """MedGemma 27B multimodal (google/medgemma-27b-it)."""
    return MedGemmaConfig(text_config=_text_27b(), vision_config=VisionConfig())


def medsiglip_448() -> MedSiglipConfig:
    """MedSigLIP (google/medsiglip-448)."""
    return MedSiglipConfig()


def _nano_vision() -> VisionConfig:
    return VisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=224,
        patch_size=16,
    )


def medgemma_nano() -> MedGemmaConfig:
    """The demonstration decoder that ships in `weights/`; 49 image tokens, 8 k pieces."""
    text = TextConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        query_pre_attn_scalar=64,
        vocab_size=8192,
        sliding_window=256,
        max_position_embeddings=8192,
    )
    return MedGemmaConfig(
        text_config=text,
        vision_config=_nano_vision(),
        mm_tokens_per_image=49,
        image_token_id=8191,
        boi_token_id=8189,
        eoi_token_id=8190,
        medgemma_version="1.5",
    )


def medsiglip_nano() -> MedSiglipConfig:
    """The demonstration encoder that ships in `weights/`; its tower is like the decoder's."""
    text = SiglipTextConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=3,
        num_attention_heads=3,
        vocab_size=8192,
        projection_size=192,
    )
    return MedSiglipConfig(text_config=text, vision_config=_nano_vision())
