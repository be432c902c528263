"""What users have a model do, timed on the native engine: one job, one process, one line of JSON.

    python -m bench.jobs whole --model FOLDER

Jobs:

    decode    a prompt of 256 tokens, 64 new ones
    prefill   a prompt of --tokens, one new token
    image     one image through the vision tower
    whole     one image and 64 tokens, 200 new ones
    eight     eight requests at once behind one system prompt of 512 tokens: 64 of their own, 64 new
    second    a second question about a record of --tokens
    copy      an answer of 200 tokens that copies from a record, with guessing and without
    long      a prompt of --tokens, 16 new ones: memory

Prompts are random ids, but for `copy`. Guessing is off but in `copy`: a random model may repeat
itself, which no real one is to be credited with. `bench/proof.py` compares with peers.
"""

import argparse
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.extraction import ScriptedRunner, extraction
from osler.inference.continuation import Generation
from osler.inference.engine import Engine
from osler.inference.limits import Limits
from osler.inference.request import Request
from osler.inference.runner import Runner
from osler.inference.sampling import SamplingParams
from osler.models.config import FULL
from osler.native.decoder_weights import decoder_parts
from osler.preprocess.processor import Prompt
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.packed import load_packed_medgemma

REQUESTS, SHARED_TOKENS, OWN_TOKENS, OWN_NEW_TOKENS = 8, 512, 64, 64

Figures = dict[str, Any]


class Bench:
    """A loaded model, and jobs for it."""

    def __init__(self, given: argparse.Namespace) -> None:
        start = time.perf_counter()
        self._model = load_packed_medgemma(given.model)
        self._tokenizer = Tokenizer.from_folder(given.model)
        self._config = self._model.config
        self._tokens: int = given.tokens
        self._new_tokens: int = given.new_tokens
        self.load_s = time.perf_counter() - start

    def decode(self) -> Figures:
        """Tokens a second after a short prompt, and the bytes that each of them reads."""
        return self._one(self._prompt(256, seed=1), self._new_tokens or 64)

    def prefill(self) -> Figures:
        """A prompt, and the token that it leads to."""
        return self._one(self._prompt(self._tokens, seed=1), 1)

    def image(self) -> Figures:
        """The vision tower with its projector."""
        pixels_1CSS = self._pixels(seed=1)[None]
        start = time.perf_counter()
        self._model.runner.embed_images(pixels_1CSS)
        return {"encode_s": time.perf_counter() - start}

    def whole(self) -> Figures:
        """An image with a question, answered."""
        config = self._config
        soft = [config.image_token_id] * config.mm_tokens_per_image
        ids = [config.bos_token_id, config.boi_token_id, *soft, config.eoi_token_id]
        question = self._prompt(64, seed=1)
        prompt = Prompt(ids=ids + question.ids, pixels=self._pixels(seed=1)[None])
        return self._one(prompt, self._new_tokens or 200)

    def eight(self) -> Figures:
        """New tokens a second of requests that begin alike, their prompts included."""
        engine = self._engine(max_running=REQUESTS)
        shared = self._prompt(SHARED_TOKENS, seed=1).ids
        prompts = [
            Prompt(ids=shared + self._prompt(OWN_TOKENS, seed=2 + number).ids)
            for number in range(REQUESTS)
        ]
        start = time.perf_counter()
        done = _finish(engine.prepare(prompts, _greedy(OWN_NEW_TOKENS))())
        total_s = time.perf_counter() - start
        return {"total_s": total_s, "new_tok_s": sum(len(one.ids) for one in done) / total_s}

    def second(self) -> Figures:
        """Seconds to the first token of two questions about one record."""
        engine = self._engine()
        record = self._prompt(self._tokens, seed=1).ids
        first, second = (
            _timed(engine, Prompt(ids=record + self._prompt(32, seed=seed).ids), 2)
            for seed in (2, 3)
        )
        share = second["ttft_s"] / first["ttft_s"]
        return {"first_s": first["ttft_s"], "second_s": second["ttft_s"], "share": share}

    def copy(self) -> Figures:
        """Decoding of an answer that copies: what it gains from guessing."""
        record, answer = extraction(self._tokenizer, 200)
        prompt = Prompt(ids=[self._config.bos_token_id, *record])
        decode_s = {}
        for drafts in (0, 8):
            runner = ScriptedRunner(self._model.runner, len(prompt.ids), answer)
            engine = self._engine(runner=runner, draft_tokens=drafts)
            decode_s[drafts] = _timed(engine, prompt, len(answer))["decode_s"]
            accepted = engine.stats().accepted_tokens
        return {
            "plain_s": decode_s[0],
            "decode_s": decode_s[8],
            "gain": decode_s[0] / decode_s[8],
            "accepted_tokens": accepted,
        }

    def long(self) -> Figures:
        """A long prompt."""
        return self._one(self._prompt(self._tokens, seed=1), 16)

    def token_bytes(self, context: int) -> int:
        """Bytes that a new token reads: the decoder's weights, keys and values."""
        parts = [part for part in decoder_parts(self._config.text_config) if part.is_matrix]
        entries = self._model.file.entries
        text = self._config.text_config
        total = sum(entries[part.name].bytes for part in parts)
        for kind in text.layer_types:
            seen = context if kind == FULL else min(context, text.sliding_window)
            total += seen * 2 * text.num_key_value_heads * text.head_dim * 2  # bf16
        return total

    def _one(self, prompt: Prompt, new_tokens: int) -> Figures:
        return _timed(self._engine(), prompt, new_tokens)

    def _engine(self, runner: Runner | None = None, **limits: Any) -> Engine:
        """One that knows nothing, and has room for this job alone."""
        return Engine(
            runner or self._model.runner,
            self._tokenizer,
            limits=Limits(**({"draft_tokens": 0} | limits)),
        )

    def _prompt(self, tokens: int, *, seed: int) -> Prompt:
        generator = random.Random(seed)
        return Prompt(ids=[generator.randrange(300, 8000) for _ in range(tokens)])

    def _pixels(self, *, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        assert self._config.vision_config is not None
        side = self._config.vision_config.image_size
        return np.random.default_rng(seed).random((3, side, side), np.float32) * 2 - 1


def _greedy(new_tokens: int) -> SamplingParams:
    return SamplingParams(max_new_tokens=new_tokens)


def _finish(requests: Sequence[Request]) -> list[Generation]:
    """Answer all; iterating a request runs its engine."""
    return [event for request in requests for event in request if isinstance(event, Generation)]


def _timed(engine: Engine, prompt: Prompt, new_tokens: int) -> Figures:
    """A request alone, with the definitions of the peers' program."""
    start = time.perf_counter()
    (done,) = _finish([engine.submit(prompt, _greedy(new_tokens))])
    total_s = time.perf_counter() - start
    if len(done.ids) != new_tokens:
        raise SystemExit(f"the answer ended after {len(done.ids)} tokens of {new_tokens}")
    decode_s = done.timings.decode_s
    ttft_s = total_s - decode_s
    encode_s = done.timings.image_encode_s
    return {
        "encode_s": encode_s or None,
        "ttft_s": ttft_s,
        "prefill_tok_s": len(prompt.ids) / (ttft_s - encode_s),
        "decode_s": decode_s,
        "decode_tok_s": (new_tokens - 1) / decode_s if new_tokens > 1 else None,
        "total_s": total_s,
    }


def _medians(runs: Sequence[Figures]) -> Figures:
    return {
        name: None if runs[0][name] is None else round(statistics.median(r[name] for r in runs), 4)
        for name in runs[0]
    }


JOBS: dict[str, Callable[[Bench], Figures]] = {
    "decode": Bench.decode,
    "prefill": Bench.prefill,
    "image": Bench.image,
    "whole": Bench.whole,
    "eight": Bench.eight,
    "second": Bench.second,
    "copy": Bench.copy,
    "long": Bench.long,
}


def main() -> None:
    """Run one job."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--model", type=Path, required=True, help="a packed folder")
    parser.add_argument("--tokens", type=int, default=512, help="of the prompt or record")
    parser.add_argument("--new-tokens", type=int, default=0, help="0: as many as the job says")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-warm-up", action="store_true", help="the first run counts as well")
    given = parser.parse_args()
    bench = Bench(given)
    runs = [JOBS[given.job](bench) for _ in range(given.repeat + (not given.no_warm_up))]
    figures = _medians(runs[not given.no_warm_up :])
    result = {"engine": "osler", "job": given.job, "load_s": round(bench.load_s, 3), **figures}
    result["token_bytes"] = bench.token_bytes(256)
    result["rss_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
    result["runs"] = runs
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
