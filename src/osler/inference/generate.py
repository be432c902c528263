"""The engine: prompts in, text out, a batch at a time.

Shapes: B batch, L positions, N images, C channels, S image side, V vocabulary.
"""

import threading
from collections.abc import Generator, Sequence
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from osler.errors import PromptError
from osler.inference.continuation import Continuation, Generation, Piece
from osler.inference.runner import CachedRunner, CacheT
from osler.inference.sampling import SamplingParams
from osler.models.config import MedGemmaConfig
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer

# Bounds the vision tower's working memory, and how long a cancelling caller waits.
IMAGES_AT_ONCE = 4


def generate(
    runner: CachedRunner[CacheT],
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    cancel: threading.Event | None = None,
) -> Generator[Piece | Generation, None, None]:
    """Answer several prompts together, each as it would be alone.

    Closing the generator, or setting `cancel`, ends the work at the next token and frees the cache.

    Args:
        runner: the model.
        tokenizer: the model's.
        prompts: of any lengths, with or without images.
        params: how to choose tokens and when to stop, for all prompts.
        cancel: once set, every unfinished answer ends as "cancelled".

    Returns:
        Pieces of text as they settle, and behind the last piece of each prompt its `Generation`.

    Raises:
        PromptError: at once, where a prompt is empty, too long, or does not fit the model.
        NonFiniteError: while generating, where the model's scores are NaN or infinite.
    """
    pixels = [_checked_pixels(prompt, runner.config) for prompt in prompts]
    answers = [
        Continuation(i, prompt.ids, config=runner.config, tokenizer=tokenizer, params=params)
        for i, prompt in enumerate(prompts)
    ]
    return _run(runner, answers, pixels, cancel or threading.Event())


def stream(
    runner: CachedRunner[CacheT],
    tokenizer: Tokenizer,
    prompt: Prompt,
    params: SamplingParams,
    *,
    cancel: threading.Event | None = None,
) -> Generator[str, None, Generation]:
    """Answer one prompt as pieces of text, without the thought.

    Args:
        runner: the model.
        tokenizer: the model's.
        prompt: what to answer.
        params: how to choose tokens and when to stop.
        cancel: once set, the answer ends as "cancelled".

    Returns:
        The pieces; the generator's return value is the whole, whose `text` is the pieces joined.

    Raises:
        PromptError, NonFiniteError: as `generate`.
    """
    return _answer_text(generate(runner, tokenizer, [prompt], params, cancel=cancel))


def complete(
    runner: CachedRunner[CacheT],
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    cancel: threading.Event | None = None,
) -> list[Generation]:
    """Answer several prompts together and wait for all of them.

    Args:
        runner: the model.
        tokenizer: the model's.
        prompts: of any lengths, with or without images.
        params: how to choose tokens and when to stop, for all prompts.
        cancel: once set, every unfinished answer ends as "cancelled".

    Returns:
        One answer a prompt, in their order.

    Raises:
        PromptError, NonFiniteError: as `generate`.
    """
    events = generate(runner, tokenizer, prompts, params, cancel=cancel)
    finished = [event for event in events if isinstance(event, Generation)]
    return sorted(finished, key=lambda generation: generation.index)


def _answer_text(
    events: Generator[Piece | Generation, None, None],
) -> Generator[str, None, Generation]:
    while isinstance(event := next(events), Piece):
        if not event.is_thought:
            yield event.text
    return event


def _run(
    runner: CachedRunner[CacheT],
    answers: list[Continuation],
    pixels: list[Tensor],
    cancel: threading.Event,
) -> Generator[Piece | Generation, None, None]:
    seconds = dict.fromkeys(("image_encode_s", "prefill_s", "decode_s"), 0.0)
    start = perf_counter()
    soft_NTD = _soft_tokens(runner, pixels, cancel)
    seconds["image_encode_s"] = perf_counter() - start
    cache = runner.new_cache(len(answers))
    stage, unread = "prefill_s", slice(None)
    while answers and not cancel.is_set():
        start = perf_counter()
        ids_BL, attention_mask_BL = _left_pad(
            [answer.ids_L[unread] for answer in answers], runner.config.pad_token_id
        )
        logits_BV = runner.forward(
            ids_BL, cache=cache, soft_NTD=soft_NTD, attention_mask_BL=attention_mask_BL
        )
        pieces = [
            piece
            for answer, logits_V in zip(answers, logits_BV, strict=True)
            if not cancel.is_set()
            for piece in answer.extend(logits_V)
        ]
        seconds[stage] += perf_counter() - start
        yield from pieces
        yield from (a.generation(**seconds) for a in answers if a.finish_reason)
        rows = [row for row, answer in enumerate(answers) if answer.finish_reason is None]
        if len(rows) < len(answers):
            cache.keep_rows(torch.tensor(rows, dtype=torch.long))
            answers = [answers[row] for row in rows]
        stage, unread, soft_NTD = "decode_s", slice(-1, None), None
    for answer in answers:
        yield from answer.finish("cancelled")
        yield answer.generation(**seconds)


def _soft_tokens(
    runner: CachedRunner[CacheT], pixels: list[Tensor], cancel: threading.Event
) -> Tensor | None:
    """All images of the batch, embedded; fewer, where cancelled in between."""
    soft: list[Tensor] = []
    for images_NCSS in pixels:
        for first in range(0, len(images_NCSS), IMAGES_AT_ONCE):
            if not cancel.is_set():
                soft.append(runner.embed_images(images_NCSS[first : first + IMAGES_AT_ONCE]))
    return torch.cat(soft) if soft else None


def _left_pad(rows: list[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """Stack id rows of different lengths; the mask is 1 at real tokens."""
    real = [torch.ones_like(row) for row in rows]
    ids_BL = pad_sequence(rows, batch_first=True, padding_value=pad_id, padding_side="left")
    return ids_BL, pad_sequence(real, batch_first=True, padding_side="left")


def _checked_pixels(prompt: Prompt, config: MedGemmaConfig) -> Tensor:
    """The prompt's images, if the model can take all of the prompt."""
    limit = config.text_config.max_position_embeddings
    if not 0 < len(prompt.ids) < limit:
        raise PromptError(
            f"the prompt has {len(prompt.ids)} tokens; this model takes from 1 to {limit - 1}"
        )
    text_ids = [i for i in prompt.ids if i != config.image_token_id]
    if stray := [i for i in text_ids if not 0 <= i < config.text_config.vocab_size]:
        raise PromptError(f"token id {stray[0]} is not in the model's vocabulary")
    pixels_NCSS = torch.as_tensor(prompt.pixels)
    images, image_tokens = len(pixels_NCSS), len(prompt.ids) - len(text_ids)
    if image_tokens != images * config.mm_tokens_per_image:
        raise PromptError(
            f"the prompt has {image_tokens} image tokens for {images} images"
            f" of {config.mm_tokens_per_image} each"
        )
    if images:
        if config.vision_config is None:
            raise PromptError("the prompt has images, and this model reads text only")
        side = config.vision_config.image_size
        wanted = (config.vision_config.num_channels, side, side)
        if pixels_NCSS.shape[1:] != wanted:
            raise PromptError(
                f"the prompt's images are {tuple(pixels_NCSS.shape[1:])}; the model takes {wanted}"
            )
    return pixels_NCSS
