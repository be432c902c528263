"""The engine over a real, tiny model: against transformers' generate, and against itself alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from osler.inference.continuation import Generation, Piece
from osler.inference.engine import Engine
from osler.inference.generate import complete
from osler.inference.runner import Chunk
from osler.inference.sampling import SamplingParams
from osler.inference.torch_runner import TorchRunner
from osler.models.medgemma import MedGemma
from osler.models.pages import PAGE_TOKENS
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer
from osler.testing.dummy import dummy_config
from osler.testing.reference import MedGemmaPair, medgemma_pair

CONFIG = dummy_config()
NEW = 16


@pytest.fixture(scope="module")
def pair() -> MedGemmaPair:
    return medgemma_pair(CONFIG)


def drawn(row: str, seed: int = 0) -> Prompt:
    """A prompt from a drawing: a letter is a text token, four `I` an image."""
    ids = [CONFIG.image_token_id if sign == "I" else 200 + ord(sign) for sign in row]
    images = row.count("I") // CONFIG.mm_tokens_per_image
    generator = torch.Generator().manual_seed(seed)
    pixels_NCSS = torch.rand(images, 3, 56, 56, generator=generator) * 2 - 1
    return Prompt(ids=ids, pixels=pixels_NCSS.numpy())


# Shorter and longer than the window of 8, one and two images, one across the window's edge.
PROMPTS = [
    drawn("abIIIIcdef", 1),
    drawn("x"),
    drawn("abcdeIIIIfgIIIIhijklmnop", 2),
    drawn("qrstuvwxyzabcdefgh"),
]


def their_answer(pair: MedGemmaPair, prompt: Prompt, **settings: Any) -> tuple[int, ...]:
    """New ids of transformers' generate."""
    ids_BL = torch.tensor([prompt.ids])
    images = {}
    if len(prompt.pixels):
        images = {
            "pixel_values": torch.as_tensor(prompt.pixels),
            "token_type_ids": (ids_BL == CONFIG.image_token_id).long(),
        }
    out_BL = pair.theirs.generate(
        input_ids=ids_BL,
        attention_mask=torch.ones_like(ids_BL),
        **images,
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=list(CONFIG.eos_token_ids),
        pad_token_id=CONFIG.pad_token_id,
        # An answer cannot hold an image: ours never says this token.
        suppress_tokens=[CONFIG.image_token_id],
        **settings,
    )
    return tuple(out_BL[0, len(prompt.ids) :].tolist())


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    "settings", [{}, {"repetition_penalty": 1.6}, {"no_repeat_ngram_size": 1}], ids=str
)
def test_greedy_tokens_are_those_of_transformers(
    pair: MedGemmaPair, tokenizer: Tokenizer, prompt: Prompt, settings: dict[str, Any]
) -> None:
    params = SamplingParams(max_new_tokens=NEW, **settings)
    (ours,) = complete(Engine(TorchRunner(pair.ours), tokenizer), [prompt], params)
    assert ours.ids == their_answer(pair, prompt, **settings)
    if settings:
        assert len(set(ours.ids)) > NEW / 4


# Any of these ends an answer, so that the rows of a batch end at different times.
OFTEN_ENDS = tuple(range(100, 200))
ALONE_OR_TOGETHER = [
    SamplingParams(max_new_tokens=NEW, no_repeat_ngram_size=1),
    SamplingParams(max_new_tokens=NEW, temperature=0.7, seed=5),
    SamplingParams(max_new_tokens=NEW, temperature=0.9, seed=11, top_k=200, top_p=0.95),
    SamplingParams(max_new_tokens=NEW, temperature=0.5, seed=2, repetition_penalty=1.2),
]


@pytest.mark.parametrize("params", ALONE_OR_TOGETHER, ids=["greedy", "seed 5", "seed 11", "seed 2"])
def test_a_batch_gives_what_each_prompt_gives_alone(
    pair: MedGemmaPair, tokenizer: Tokenizer, params: SamplingParams
) -> None:
    runner = TorchRunner(MedGemma(replace(CONFIG, eos_token_ids=OFTEN_ENDS)))
    runner.model.load_state_dict(pair.ours.state_dict())
    together = complete(Engine(runner, tokenizer), PROMPTS, params)
    for prompt, in_batch in zip(PROMPTS, together, strict=True):
        (alone,) = complete(Engine(runner, tokenizer), [prompt], params)
        assert in_batch.ids == alone.ids
        assert in_batch.text == alone.text
        assert in_batch.thought == alone.thought
        assert in_batch.finish_reason == alone.finish_reason
    assert len({len(answer.ids) for answer in together}) > 1


def test_same_seed_same_tokens_and_another_seed_others(
    pair: MedGemmaPair, tokenizer: Tokenizer
) -> None:
    def ids(seed: int | None) -> tuple[int, ...]:
        params = SamplingParams(max_new_tokens=NEW, temperature=1.0, seed=seed)
        return complete(Engine(TorchRunner(pair.ours), tokenizer), PROMPTS[:1], params)[0].ids

    assert ids(3) == ids(3)
    assert ids(3) != ids(4)
    assert ids(None) != ids(None)


@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "known"])
def test_local_layers_keep_no_more_than_the_window(
    pair: MedGemmaPair, tokenizer: Tokenizer, reused: bool
) -> None:
    """Pages behind the window are taken away, and nothing that they held is missed."""
    engine = Engine(TorchRunner(pair.ours), tokenizer)
    params = SamplingParams(max_new_tokens=3 * PAGE_TOKENS)
    (alone,) = complete(engine, [PROMPTS[2]], params)
    if not reused:
        engine = Engine(TorchRunner(pair.ours), tokenizer)
    request = engine.submit(PROMPTS[2], params)
    most, events = 0, list[Piece | Generation]()
    while not events or isinstance(events[-1], Piece):
        engine.step()
        most = max(most, engine._cache.local_pool.in_use)
        while request.has_event():
            events.append(next(request))
    assert most == 2  # the page that the window begins in, and the one that is written
    assert engine._cache.local_pool.in_use == 0
    assert isinstance(events[-1], Generation)
    assert events[-1].ids == alone.ids
    assert events[-1].cached_tokens == (len(PROMPTS[2].ids) - 1 if reused else 0)
    assert len(PROMPTS[2].ids) + len(alone.ids) > PAGE_TOKENS + CONFIG.text_config.sliding_window


def test_runner_follows_the_models_dtype_and_keeps_no_graph(tokenizer: Tokenizer) -> None:
    runner = TorchRunner(medgemma_pair(CONFIG, torch.bfloat16).ours)
    (answer,) = complete(Engine(runner, tokenizer), PROMPTS[:1], SamplingParams(max_new_tokens=3))
    assert len(answer.ids) == 3
    for pages in runner._store.pages.values():
        assert pages.dtype == torch.bfloat16
        assert not pages.requires_grad
    chunk = Chunk(ids=[2], start=0, global_pages=[0], local_pages=[0], logits=1)
    logits_RV = runner.forward([chunk])
    assert logits_RV.dtype == np.float32
    assert logits_RV.shape == (1, CONFIG.text_config.vocab_size)
