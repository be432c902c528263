"""A MedGemma that answers: what `osler.load` gives."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from osler.errors import GenerationCancelledError, PromptError
from osler.inference.continuation import Generation, Piece
from osler.inference.generate import generate
from osler.inference.runner import TorchRunner
from osler.inference.sampling import SamplingParams
from osler.models.checkpoint import load_medgemma, save_medgemma
from osler.models.config import MedGemmaConfig
from osler.models.medgemma import MedGemma
from osler.preprocess.processor import Processor, Prompt
from osler.preprocess.sources import ImageSource
from osler.preprocess.squaring import Squaring
from osler.tasks.answer import Answer, Timings
from osler.tasks.checkpoint_extras import carry_over, notice
from osler.tasks.placement import torch_device, torch_dtype

Messages = Sequence[Mapping[str, Any]]


class AnswerStream(Iterator[str]):
    """An answer in the making: iterate for the pieces of its text, then take `answer`.

    The pieces joined are `answer.text`. Closing the stream ends the work at the next token.

    Attributes:
        prompt: what the model was given.
    """

    def __init__(
        self,
        prompt: Prompt,
        events: Generator[Piece | Generation, None, None],
        finish: Callable[[Generation], Answer],
        on_thought: Callable[[str], object] | None,
    ) -> None:
        self.prompt = prompt
        self._events = events
        self._finish = finish
        self._on_thought = on_thought
        self._answer: Answer | None = None

    def __next__(self) -> str:
        for event in self._events:
            if isinstance(event, Generation):
                self._answer = self._finish(event)
            elif not event.is_thought:
                return event.text
            elif self._on_thought is not None:
                self._on_thought(event.text)
        raise StopIteration

    def close(self) -> None:
        """Stop generating; what came until then stays valid."""
        self._events.close()

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has come to its end; generates what is left of it.

        Raises:
            GenerationCancelledError: the stream was closed before its end.
        """
        for _ in self:
            pass
        if self._answer is None:
            raise GenerationCancelledError("the stream was closed before the answer's end")
        return self._answer


class Assistant:
    """A MedGemma with its processor; made by `osler.load`.

    Attributes:
        model: the weights.
        name: what it was loaded by.
        folder: where it was loaded from.
        notice: what its answers say about it.
    """

    def __init__(self, model: MedGemma, *, name: str, folder: Path) -> None:
        self.model = model
        self.name = name
        self.folder = folder
        self.notice = notice(folder)

    @property
    def config(self) -> MedGemmaConfig:
        """Sizes and special tokens."""
        return self.model.config

    @cached_property
    def processor(self) -> Processor:
        """From messages to ids and pixels; read when first needed, as `logits` goes without.

        Raises:
            CheckpointError: the folder lacks a tokenizer, or it contradicts the model.
        """
        return Processor.from_folder(self.folder, version=self.config.medgemma_version)

    def ask(
        self,
        question: str,
        images: Sequence[ImageSource] = (),
        *,
        system: str | None = None,
        squaring: Squaring = "pad",
        pan_and_scan: bool = False,
        **sampling: Any,
    ) -> Answer:
        """Ask one question.

        Args:
            question: what to ask.
            images: paths of pictures or DICOM files, PIL images, uint8 RGB arrays `(H, W, 3)`, or
                `Image` records; they stand before the question.
            system: a system message.
            squaring: "pad" to a square with zeros, as MedGemma was trained, or "stretch".
            pan_and_scan: add crops of images that are far from square.
            **sampling: fields of `SamplingParams`: max_new_tokens=200, temperature=0.0, seed=None
                and so on.

        Raises:
            InputError: an image that cannot be read, or a prompt that the model cannot take.
        """
        return self.stream(
            question,
            images,
            system=system,
            squaring=squaring,
            pan_and_scan=pan_and_scan,
            **sampling,
        ).answer

    def chat(
        self,
        messages: Messages,
        *,
        squaring: Squaring = "pad",
        pan_and_scan: bool = False,
        **sampling: Any,
    ) -> Answer:
        """Answer the last of several messages in the Hugging Face form.

        Args:
            messages: `{"role": "user", "content": [{"type": "image", "image": path}, {"type":
                "text", "text": "..."}]}` and so on, of "system", "user" and "assistant".
            squaring: as `ask` takes it.
            pan_and_scan: as `ask` takes it.
            **sampling: as `ask` takes them.

        Raises:
            InputError: an image that cannot be read, or messages that make no prompt.
        """
        return self.stream(
            messages, squaring=squaring, pan_and_scan=pan_and_scan, **sampling
        ).answer

    def stream(
        self,
        question: str | Messages,
        images: Sequence[ImageSource] = (),
        *,
        system: str | None = None,
        squaring: Squaring = "pad",
        pan_and_scan: bool = False,
        on_thought: Callable[[str], object] | None = None,
        **sampling: Any,
    ) -> AnswerStream:
        """Answer as it is written.

        Args:
            question: what to ask, or messages as `chat` takes them.
            images: as `ask` takes them; messages bring their own.
            system: a system message; messages bring their own.
            squaring: as `ask` takes it.
            pan_and_scan: as `ask` takes it.
            on_thought: called with the pieces of a thinking model's thought.
            **sampling: as `ask` takes them.

        Returns:
            An iterator of pieces of text, never half a character, which has the whole `answer`.

        Raises:
            InputError: at once, as `ask` and `chat`.
        """
        start = perf_counter()
        params = SamplingParams(**sampling)
        if isinstance(question, str):
            messages = _messages(question, images, system)
        elif images or system is not None:
            raise PromptError("messages bring their own images and system message")
        else:
            messages = question
        prompt = self.processor(messages, squaring=squaring, pan_and_scan=pan_and_scan)
        events = generate(TorchRunner(self.model), self.processor.tokenizer, [prompt], params)
        prepare_s = perf_counter() - start
        finish = partial(self._answer, prompt, prepare_s)
        return AnswerStream(prompt, events, finish, on_thought)

    @torch.inference_mode()
    def logits(
        self,
        input_ids: ArrayLike | Tensor,
        pixel_values: ArrayLike | Tensor | None = None,
        attention_mask: ArrayLike | Tensor | None = None,
    ) -> Tensor:
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
        weight = self.model.language_model.embed_tokens.weight
        pixels = None
        if pixel_values is not None:
            pixels = torch.as_tensor(pixel_values, dtype=weight.dtype, device=weight.device)
        mask = None
        if attention_mask is not None:
            mask = torch.as_tensor(attention_mask, device=weight.device)
        logits_BLV: Tensor = self.model(
            torch.as_tensor(input_ids, device=weight.device),
            pixels_NCSS=pixels,
            attention_mask_BL=mask,
        )
        return logits_BLV

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Save a Hugging Face folder: weights, configuration, and the processor's own files.

        Args:
            folder: created where it is not there; other files in it stay.

        Raises:
            CheckpointError: it cannot be written.
        """
        target = Path(folder)
        save_medgemma(self.model, target)
        carry_over(self.folder, target, self.notice)

    def _answer(self, prompt: Prompt, prepare_s: float, generation: Generation) -> Answer:
        timings = generation.timings
        return Answer(
            text=generation.text,
            thought=generation.thought,
            tokens=generation.ids,
            prompt_tokens=timings.prompt_tokens,
            finish_reason=generation.finish_reason,
            timings=Timings(
                prepare_s=prepare_s,
                image_encode_s=timings.image_encode_s,
                prefill_s=timings.prefill_s,
                decode_s=timings.decode_s,
            ),
            notice=self.notice,
            model=self.name,
            version=self.config.medgemma_version,
            input_sha256=prompt.input_sha256,
        )


def load_assistant(
    folder: Path,
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    version: str | None = None,
) -> Assistant:
    """See `osler.load`."""
    model = load_medgemma(folder, dtype=torch_dtype(dtype), device=torch_device(device))
    if version is not None:
        try:
            model.config = replace(model.config, medgemma_version=version)
        except ValueError as error:
            raise PromptError(f"version: {error}") from None
    return Assistant(model, name=name, folder=folder)


def _messages(question: str, images: Sequence[ImageSource], system: str | None) -> Messages:
    if isinstance(images, str | os.PathLike):
        raise PromptError("images is a list of images: images=[path]")
    content = [{"type": "image", "image": image} for image in images]
    user = {"role": "user", "content": [*content, {"type": "text", "text": question}]}
    return [user] if system is None else [{"role": "system", "content": system}, user]
