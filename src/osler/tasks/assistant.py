"""A MedGemma that answers on this machine: what `osler.load` gives."""

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from osler.errors import CheckpointError, PromptError
from osler.inference.engine import Engine
from osler.inference.generate import generate
from osler.inference.native_model import NativeMedGemma
from osler.inference.runner import Runner
from osler.inference.sampling import SamplingParams
from osler.models.config import MedGemmaConfig
from osler.preprocess.processor import Processor, Prompt
from osler.preprocess.squaring import Squaring
from osler.tasks.chat_model import ChatModel, Events, Messages
from osler.tasks.checkpoint_extras import carry_over, notice
from osler.tasks.packed import load_packed_medgemma, load_packed_tokenizer
from osler.tasks.packed_folder import is_packed

if TYPE_CHECKING:  # it takes seconds to import, and packed models need it not
    import torch
    from torch import Tensor

    from osler.models.medgemma import MedGemma


class Assistant(ChatModel):
    """A MedGemma with its processor on this machine; made by `osler.load`.

    Attributes:
        model: the weights, in torch or packed.
        name: what it was loaded by.
        folder: where it was loaded from; of an adapter, its base's.
        notice: what its answers say about it.
    """

    def __init__(self, model: "MedGemma | NativeMedGemma", *, name: str, folder: Path) -> None:
        self.model = model
        self.name = name
        self.folder = folder
        self.notice = notice(folder)

    @property
    def config(self) -> MedGemmaConfig:
        """Sizes and special tokens."""
        return self.model.config

    @property
    def version(self) -> str:
        """See `ChatModel.version`."""
        return self.config.medgemma_version

    @cached_property
    def processor(self) -> Processor:
        """From messages to ids and pixels; read when first needed, as `logits` goes without.

        Raises:
            CheckpointError: the folder lacks a tokenizer, or it contradicts the model.
        """
        tokenizer = None
        if isinstance(self.model, NativeMedGemma):
            tokenizer = load_packed_tokenizer(self.folder)
        return Processor.from_folder(
            self.folder, version=self.config.medgemma_version, tokenizer=tokenizer
        )

    @cached_property
    def engine(self) -> Engine:
        """Answers its requests; what it has read stays known, so that it is not read again.

        Raises:
            MemoryLimitError: the machine has too little free memory for keys and values.
        """
        return Engine(self._runner(), self.processor.tokenizer)

    def _runner(self) -> Runner:
        if isinstance(self.model, NativeMedGemma):
            return self.model.runner
        from osler.inference.torch_runner import TorchRunner

        return TorchRunner(self.model)

    def logits(
        self,
        input_ids: "ArrayLike | Tensor",
        pixel_values: "ArrayLike | Tensor | None" = None,
        attention_mask: "ArrayLike | Tensor | None" = None,
    ) -> "Tensor":
        """Score the next token at every position.

        Args:
            input_ids: integers (B, L); an image is `config.mm_tokens_per_image` times
                `config.image_token_id`.
            pixel_values: float (N, C, S, S), -1 to 1, in reading order over the batch.
            attention_mask: (B, L), 1 at real tokens, 0 at padding, which stands on the left.

        Returns:
            float32 (B, L, V).

        Raises:
            ValueError: image tokens and images do not match in number.
        """
        import torch

        device, dtype = torch.device("cpu"), torch.float32
        if not isinstance(self.model, NativeMedGemma):
            weight = self.model.language_model.embed_tokens.weight
            device, dtype = weight.device, weight.dtype
        ids_BL = torch.as_tensor(input_ids, device=device)
        pixels = mask = None
        if pixel_values is not None:
            pixels = torch.as_tensor(pixel_values, dtype=dtype, device=device)
        if attention_mask is not None:
            mask = torch.as_tensor(attention_mask, device=device)
        if isinstance(self.model, NativeMedGemma):
            scores_BLV = self.model.logits(
                ids_BL.numpy(),
                pixels_NCSS=None if pixels is None else pixels.numpy(),
                attention_mask_BL=None if mask is None else mask.bool().numpy(),
            )
            return torch.from_numpy(scores_BLV)
        with torch.inference_mode():
            logits_BLV: Tensor = self.model(ids_BL, pixels_NCSS=pixels, attention_mask_BL=mask)
        return logits_BLV

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Save a Hugging Face folder: weights, configuration, and the processor's own files.

        Args:
            folder: created where it is not there; other files in it stay.

        Raises:
            CheckpointError: it cannot be written, or the model is packed, or has an adapter.
        """
        target = Path(folder)
        if isinstance(self.model, NativeMedGemma):
            raise CheckpointError(
                f"{self.folder}: packed weights cannot be saved; copy the folder, or save the "
                "checkpoint that it was made of"
            )
        from osler.models.checkpoint import save_medgemma
        from osler.models.lora import lora_layers

        if any(lora_layers(self.model)):
            raise CheckpointError(
                f"{self.name}: an adapter; `osler merge` makes a checkpoint of it"
            )
        save_medgemma(self.model, target)
        carry_over(self.folder, target, self.notice)

    def _begin(
        self,
        messages: Messages,
        params: SamplingParams,
        *,
        squaring: Squaring,
        pan_and_scan: bool,
    ) -> tuple[Prompt, Events]:
        prompt = self.processor(messages, squaring=squaring, pan_and_scan=pan_and_scan)
        return prompt, generate(self.engine, [prompt], params)


def load_assistant(
    folder: Path,
    name: str,
    *,
    device: "torch.device | str" = "cpu",
    dtype: "torch.dtype | str | None" = None,
    version: str | None = None,
) -> Assistant:
    """See `osler.load`."""
    model: MedGemma | NativeMedGemma
    if is_packed(folder):
        model = load_packed_medgemma(folder, device=device, dtype=dtype)
    else:
        # Imported here: packed models run without torch.
        from osler.models.checkpoint import load_medgemma
        from osler.tasks.adapter import base_folder, is_adapter, load_adapted
        from osler.tasks.placement import torch_device, torch_dtype

        at, chosen = torch_device(device), torch_dtype(dtype)
        if is_adapter(folder):
            adapter, folder = folder, base_folder(folder)
            model = load_adapted(adapter, folder, dtype=chosen, device=at)
        else:
            model = load_medgemma(folder, dtype=chosen, device=at)
    if version is not None:
        try:
            model.config = replace(model.config, medgemma_version=version)
        except ValueError as error:
            raise PromptError(f"version: {error}") from None
    return Assistant(model, name=name, folder=folder)
