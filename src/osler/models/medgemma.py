"""MedGemma: a Gemma 3 decoder that reads images as soft tokens.

Shapes: B batch, L positions, N images, C channels, S image side, P patches, T tokens an image,
D hidden_size, V vocabulary.

Source: MedGemma (arXiv 2507.05201), section 2; Gemma 3 (arXiv 2503.19786), section 2.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osler.models.attention_mask import image_blocks
from osler.models.config import MedGemmaConfig
from osler.models.gemma3 import GemmaDecoder, RMSNorm
from osler.models.kv_cache import KVCache
from osler.models.siglip import VisionTower


class Projector(nn.Module):
    """Patches to soft tokens: average pooling on the grid, norm, one matrix."""

    def __init__(self, config: MedGemmaConfig) -> None:
        super().__init__()
        if config.vision_config is None:
            raise ValueError("a projector needs a vision_config")
        vision = config.vision_config
        self.grid = vision.grid
        self.pool = vision.grid // round(config.mm_tokens_per_image**0.5)
        self.mm_input_projection_weight = nn.Parameter(
            torch.empty(vision.hidden_size, config.text_config.hidden_size)
        )
        self.mm_soft_emb_norm = RMSNorm(vision.hidden_size, vision.layer_norm_eps)
        nn.init.normal_(self.mm_input_projection_weight, std=vision.hidden_size**-0.5)

    def pooled(self, patches_NPD: Tensor) -> Tensor:
        """Average the patches on their grid, (N, P, D) to (N, T, D), D the vision hidden_size."""
        grid_NDGG = patches_NPD.transpose(1, 2).unflatten(-1, (self.grid, self.grid))
        return F.avg_pool2d(grid_NDGG.contiguous(), self.pool).flatten(2).transpose(1, 2)

    def project(self, pooled_NTD: Tensor) -> Tensor:
        """Norm and map pooled patches to the text hidden_size."""
        normed: Tensor = self.mm_soft_emb_norm(pooled_NTD)
        return normed @ self.mm_input_projection_weight

    def forward(self, patches_NPD: Tensor) -> Tensor:
        """Patches (N, P, vision hidden_size) to soft tokens (N, T, text hidden_size)."""
        return self.project(self.pooled(patches_NPD))


class MedGemma(nn.Module):
    """The decoder with, where the configuration has them, a vision tower and its projector."""

    def __init__(self, config: MedGemmaConfig) -> None:
        super().__init__()
        self.config = config
        self.language_model = GemmaDecoder(config.text_config)
        if config.vision_config is not None:
            self.vision_tower = VisionTower(config.vision_config)
            self.multi_modal_projector = Projector(config)

    def embed_images(self, pixels_NCSS: Tensor) -> Tensor:
        """Soft tokens (N, T, D) of images with values from -1 to 1.

        Raises:
            ValueError: the model has no vision tower.
        """
        if self.config.vision_config is None:
            raise ValueError("this model reads text only")
        soft: Tensor = self.multi_modal_projector(self.vision_tower(pixels_NCSS))
        return soft

    def hidden(
        self,
        ids_BL: Tensor,
        *,
        pixels_NCSS: Tensor | None = None,
        soft_NTD: Tensor | None = None,
        attention_mask_BL: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Run the decoder without its head; arguments and errors are those of `forward`.

        Returns:
            (B, L, D) after the final norm.
        """
        is_image_BL = ids_BL == self.config.image_token_id
        if pixels_NCSS is not None:
            soft_NTD = self.embed_images(pixels_NCSS)
        # The image token may lie beyond the embedding table; its row is overwritten below.
        x_BLD = self.language_model.embed(ids_BL.masked_fill(is_image_BL, self.config.pad_token_id))
        given = 0 if soft_NTD is None else soft_NTD.shape[0] * soft_NTD.shape[1]
        if (expected := int(is_image_BL.sum())) != given:
            raise ValueError(f"{expected} image tokens for {given} image embeddings")
        if soft_NTD is not None:
            soft = soft_NTD.flatten(0, 1).to(x_BLD.dtype)
            x_BLD = x_BLD.masked_scatter(is_image_BL[..., None], soft)
        block_BL = image_blocks(is_image_BL, self.config.mm_tokens_per_image)
        real_BL = torch.ones_like(is_image_BL)
        if attention_mask_BL is not None:
            real_BL = attention_mask_BL.bool()
        out: Tensor = self.language_model(x_BLD, real_BL, block_BL, cache)
        return out

    def forward(
        self,
        ids_BL: Tensor,
        *,
        pixels_NCSS: Tensor | None = None,
        soft_NTD: Tensor | None = None,
        attention_mask_BL: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Score the next token at every position.

        Args:
            ids_BL: int64 token ids; an image is `mm_tokens_per_image` times `image_token_id`.
            pixels_NCSS: images, -1 to 1, in reading order of the image tokens over the batch.
            soft_NTD: the same images already embedded, instead of `pixels_NCSS`.
            attention_mask_BL: 1 at real tokens, 0 at padding, which stands on the left.
            cache: earlier positions; `ids_BL` is one row of the new positions of its spans, which
                cut no image.

        Returns:
            Logits, float32 (B, L, V).

        Raises:
            ValueError: image tokens and images do not match in number.
        """
        x_BLD = self.hidden(
            ids_BL,
            pixels_NCSS=pixels_NCSS,
            soft_NTD=soft_NTD,
            attention_mask_BL=attention_mask_BL,
            cache=cache,
        )
        return self.language_model.logits(x_BLD)
