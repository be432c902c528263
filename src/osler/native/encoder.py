"""The SigLIP towers on the native engine.

Shapes: N images, M texts, C channels, S image side, L text positions, T tokens an image,
P patches, D hidden size or embedding size.
"""

import ctypes
import weakref

import numpy as np
from numpy.typing import NDArray

from osler.models.config import MedGemmaConfig, MedSiglipConfig, SiglipTextConfig, VisionConfig
from osler.native.encoder_structs import (
    ALL_TOKENS,
    LAST_TOKEN,
    PROBE,
    SOFT_TOKENS,
    EncoderWeights,
    ModelStruct,
    StructMaker,
)
from osler.native.library import Library, Pool


class _Tower:
    """An encoder of the library with its memory.

    Attributes:
        bytes: of memory that it works in, weights not counted.
    """

    def __init__(
        self, library: Library, pool: Pool, model: ModelStruct, kept: list[object]
    ) -> None:
        address, number = ctypes.c_void_p, ctypes.c_int64
        new = library.function("osl_encoder_new", address, address, address)
        free = library.function("osl_encoder_free", None, address)
        size = library.function("osl_encoder_bytes", ctypes.c_size_t, address)
        width = library.function("osl_encoder_width", number, address)
        texts = not model.image_size
        name = "osl_encoder_texts" if texts else "osl_encoder_images"
        self._run = library.function(name, ctypes.c_int, address, address, number, address)
        pointer = new(ctypes.byref(model), pool)
        if not pointer:
            raise MemoryError("no memory for the native encoder")
        self._pointer = ctypes.c_void_p(pointer)
        self._kept = kept
        self._pool = pool
        self._width: int = width(pointer)
        self.bytes: int = size(pointer)
        weakref.finalize(self, free, pointer).atexit = False

    def __call__(self, inputs: NDArray[np.float32] | NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, width) of contiguous inputs of the right type."""
        out = np.empty((len(inputs), self._width), np.float32)
        # Towers of one model share their threads.
        with self._pool.turn:
            refused = self._run(self._pointer, inputs.ctypes.data, len(inputs), out.ctypes.data)
        if refused:
            raise ValueError("a token id is not in the vocabulary")
        return out


class VisionPatches:
    """A vision tower alone.

    Attributes:
        bytes: of memory that it works in, weights not counted.
    """

    def __init__(
        self, config: VisionConfig, weights: EncoderWeights, library: Library, pool: Pool
    ) -> None:
        """Take the memory that it will need.

        Args:
            config: of the tower.
            weights: tensors under the names of `encoder_weights`, those of `vision_model`.
            library: the kernels.
            pool: their threads.

        Raises:
            ValueError: the weights have other sizes.
            MemoryError: not enough memory.
        """
        self._config = config
        maker = StructMaker(weights)
        model = _vision_struct(maker, "vision_model", config)
        model.output = ALL_TOKENS
        self._tower = _Tower(library, pool, model, maker.kept)
        self.bytes = self._tower.bytes

    def __call__(self, pixels_NCSS: NDArray[np.float32]) -> NDArray[np.float32]:
        """One vector a patch, (N, P, D), of images with values from -1 to 1."""
        patches = self._tower(_pixels(pixels_NCSS, self._config))
        return patches.reshape(len(patches), self._config.grid**2, -1)


class NativeVision:
    """MedGemma's vision tower with its projector."""

    def __init__(
        self, config: MedGemmaConfig, weights: EncoderWeights, library: Library, pool: Pool
    ) -> None:
        """Take the memory that it will need.

        Args:
            config: of the model.
            weights: tensors under the names of `encoder_weights`.
            library: the kernels.
            pool: their threads.

        Raises:
            ValueError: the model has no vision tower, or its weights have other sizes.
            MemoryError: not enough memory.
        """
        if config.vision_config is None:
            raise ValueError("this model reads text only")
        self._config = config
        maker = StructMaker(weights)
        model = _vision_struct(maker, "vision_tower", config.vision_config)
        model.output = SOFT_TOKENS
        model.pool = config.vision_config.grid // round(config.mm_tokens_per_image**0.5)
        hidden = config.vision_config.hidden_size
        norm = "multi_modal_projector.mm_soft_emb_norm.weight"
        model.soft_norm = maker.values(norm, hidden)
        model.projection = maker.dense(
            "multi_modal_projector.mm_input_projection",
            config.text_config.hidden_size,
            hidden,
            bias=False,
        )
        self._tower = _Tower(library, pool, model, maker.kept)

    @property
    def bytes(self) -> int:
        """Bytes of memory that it works in, weights not counted."""
        return self._tower.bytes

    def embed_images(self, pixels_NCSS: NDArray[np.float32]) -> NDArray[np.float32]:
        """Soft tokens (N, T, D) of images with values from -1 to 1."""
        soft = self._tower(_pixels(pixels_NCSS, self._config.vision_config))
        shape = (self._config.mm_tokens_per_image, self._config.text_config.hidden_size)
        return soft.reshape(len(soft), *shape)


class NativeMedSiglip:
    """Both encoders of a MedSigLIP.

    Attributes:
        config: sizes of both towers.
        scale: what cosines are multiplied by to be logits.
    """

    def __init__(
        self, config: MedSiglipConfig, weights: EncoderWeights, library: Library, pool: Pool
    ) -> None:
        """Take the memory that it will need.

        Args:
            config: of the model.
            weights: tensors under the names of `encoder_weights`.
            library: the kernels.
            pool: their threads.

        Raises:
            ValueError: the weights have other sizes.
            MemoryError: not enough memory.
        """
        self.config = config
        self.scale = float(np.exp(weights.values("logit_scale")[0]))
        maker = StructMaker(weights)
        vision = _vision_struct(maker, "vision_model", config.vision_config)
        vision.output = PROBE
        hidden, wide = config.vision_config.hidden_size, config.vision_config.intermediate_size
        heads = config.vision_config.num_attention_heads
        vision.probe_keys = maker.values("vision_head.probe_keys", heads * hidden)
        vision.probe_values = maker.dense("vision_head.v_proj", hidden, hidden)
        vision.probe_out = maker.dense("vision_head.attention.out_proj", hidden, hidden)
        vision.probe_fc1 = maker.dense("vision_head.mlp.fc1", wide, hidden)
        vision.probe_fc2 = maker.dense("vision_head.mlp.fc2", hidden, wide)
        vision.probe_norm = maker.norm("vision_head.layernorm", hidden)
        self._images = _Tower(library, pool, vision, maker.kept)
        maker = StructMaker(weights)
        text = _text_struct(maker, "text_model", config.text_config)
        self._texts = _Tower(library, pool, text, maker.kept)

    @property
    def bytes(self) -> int:
        """Bytes of memory that both work in, weights not counted."""
        return self._images.bytes + self._texts.bytes

    def embed_images(self, pixels_NCSS: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors (N, D) of images with values from -1 to 1."""
        return _unit(self._images(_pixels(pixels_NCSS, self.config.vision_config)))

    def embed_texts(self, ids_ML: NDArray[np.int64]) -> NDArray[np.float32]:
        """Unit vectors (M, D) of texts padded to `max_position_embeddings`.

        Raises:
            ValueError: texts of another length, or an id that is not in the vocabulary.
        """
        length = self.config.text_config.max_position_embeddings
        if ids_ML.ndim != 2 or ids_ML.shape[1] != length:
            raise ValueError(f"texts of shape {ids_ML.shape}, not padded to {length}")
        return _unit(self._texts(np.ascontiguousarray(ids_ML, np.int64)))


def _unit(rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    length_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return np.asarray(rows_ND / np.maximum(length_N1, 1e-12), np.float32)


def _pixels(pixels_NCSS: NDArray[np.float32], config: VisionConfig | None) -> NDArray[np.float32]:
    assert config is not None
    shape = (config.num_channels, config.image_size, config.image_size)
    if pixels_NCSS.ndim != 4 or pixels_NCSS.shape[1:] != shape:
        raise ValueError(f"images of shape {pixels_NCSS.shape[1:]}, not {shape}")
    return np.ascontiguousarray(pixels_NCSS, np.float32)


def _vision_struct(maker: StructMaker, name: str, config: VisionConfig) -> ModelStruct:
    hidden = config.hidden_size
    model = maker.tower(name, config, config.grid**2)
    model.norm = maker.norm(f"{name}.post_layernorm", hidden)
    model.image_size = config.image_size
    model.patch_size = config.patch_size
    model.num_channels = config.num_channels
    patch = config.num_channels * config.patch_size**2
    model.embedding = maker.dense(f"{name}.embeddings.patch_embedding", hidden, patch)
    return model


def _text_struct(maker: StructMaker, name: str, config: SiglipTextConfig) -> ModelStruct:
    hidden = config.hidden_size
    model = maker.tower(name, config, config.max_position_embeddings)
    model.norm = maker.norm(f"{name}.final_layer_norm", hidden)
    tokens = f"{name}.embeddings.token_embedding.weight"
    model.embedding.w = maker.matrix(tokens, config.vocab_size, hidden)
    model.output = LAST_TOKEN
    model.projection = maker.dense(f"{name}.head", config.projection_size, hidden)
    return model
