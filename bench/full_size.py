"""A random MedGemma 4B at full size: transformers saves it, Osler loads it and answers the same.

    python bench/full_size.py FOLDER

writes about 8.6 GB into FOLDER, asks both about one 896 x 896 image, and prints one line of JSON:
tokens of both, seconds to load and to answer, and peak resident memory of each process beside the
size of the files. Every stage is a process of its own, so that none counts another's memory.
`--layers` makes a smaller one for trying out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from osler.inference.limits import pages_for
from osler.inference.runner import Chunk
from osler.inference.torch_runner import TorchRunner
from osler.models.checkpoint import load_medgemma
from osler.models.config import MedGemmaConfig, layer_pattern, medgemma_4b
from osler.models.hf_config import CONFIG_FILE, medgemma_json

NEW_TOKENS = 16
PROMPTS = 10


def sizes(layers: int | None) -> MedGemmaConfig:
    """The 4B, or its first layers only (every second of them global)."""
    config = medgemma_4b()
    if layers is None:
        return config
    assert config.vision_config is not None
    return replace(
        config,
        text_config=replace(
            config.text_config, num_hidden_layers=layers, layer_types=layer_pattern(layers, 2)
        ),
        vision_config=replace(config.vision_config, num_hidden_layers=layers),
    )


def prompt(config: MedGemmaConfig, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids (1, L) with one image in their middle, and its pixels."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(1000, 200_000, (14,), generator=generator).tolist()
    image = [config.image_token_id] * config.mm_tokens_per_image
    ids = [config.bos_token_id, *text[:6], config.boi_token_id, *image, config.eoi_token_id]
    assert config.vision_config is not None
    side = config.vision_config.image_size
    pixels = torch.rand(1, 3, side, side, generator=generator) * 2 - 1
    return torch.tensor([ids + text[6:]]), pixels


def save(folder: Path, layers: int | None, seed: int) -> dict[str, Any]:
    """Let transformers save random weights, in shards of 2 GB."""
    import transformers

    from osler.testing.models import randomise

    content = medgemma_json(sizes(layers), "bfloat16")[CONFIG_FILE]
    with torch.device("meta"):
        config = transformers.Gemma3Config(**content)
        model = transformers.Gemma3ForConditionalGeneration(config).to(torch.bfloat16)
    model.to_empty(device="cpu")
    model.tie_weights()
    randomise(model, seed)
    model.save_pretrained(folder, max_shard_size="2GB")
    return {}


def answer_of_transformers(folder: Path, layers: int | None, seed: int) -> dict[str, Any]:
    """Greedy tokens of the reference, and by how much the closest of its choices was one.

    The best scores of a random model lie a few units in the last place of bfloat16 apart, and some
    are equal. A tie says nothing about who computes right, and a random model may say one token
    for ever, so the first of a few prompts that does neither is asked.
    """
    import transformers

    start = time.perf_counter()
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
    loaded = time.perf_counter()
    for prompt_seed in range(seed, seed + PROMPTS):
        asked = time.perf_counter()
        ids, pixels = prompt(sizes(layers), prompt_seed)
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels.bfloat16(),
            token_type_ids=(ids == model.config.image_token_id).long(),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            return_dict_in_generate=True,
            output_logits=True,
        )
        best = torch.stack([step[0].float().topk(2).values for step in output.logits])
        closest_lead = float((best[:, 0] - best[:, 1]).min())
        tokens = output.sequences[0, ids.shape[1] :].tolist()
        if closest_lead > 0 and len(set(tokens)) > NEW_TOKENS // 2:
            break
    return {
        "prompt_seed": prompt_seed,
        "tokens": tokens,
        "closest_lead": round(closest_lead, 4),
        "load_s": round(loaded - start, 1),
        "answer_s": round(time.perf_counter() - asked, 1),
        "peak_bytes": peak_bytes(),
    }


def answer_of_osler(folder: Path, layers: int | None, seed: int) -> dict[str, Any]:
    """Greedy tokens of Osler."""
    start = time.perf_counter()
    model = load_medgemma(folder)
    loaded = time.perf_counter()
    ids, pixels = prompt(sizes(layers), seed)
    runner = TorchRunner(model)
    pages = range(pages_for(ids.shape[1] + NEW_TOKENS))
    runner.allocate(len(pages), len(pages))
    soft: NDArray[np.float32] | None = np.concatenate(runner.embed_images(pixels.numpy()))
    new, length, tokens = ids[0].tolist(), 0, list[int]()
    for _ in range(NEW_TOKENS):
        chunk = Chunk(
            ids=new, start=length, global_pages=pages, local_pages=pages, soft_TD=soft, logits=1
        )
        length += len(new)
        soft, new = None, runner.forward([chunk]).argmax(axis=-1).tolist()
        tokens += new
    return {
        "tokens": tokens,
        "load_s": round(loaded - start, 1),
        "answer_s": round(time.perf_counter() - loaded, 1),
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """The most memory that this process ever had resident, mapped files included (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


STAGES: dict[str, Callable[[Path, int | None, int], dict[str, Any]]] = {
    "save": save,
    "transformers": answer_of_transformers,
    "osler": answer_of_osler,
}


def measure(folder: Path, layers: int | None) -> dict[str, Any]:
    """Run all stages, each in its own process."""
    figures: dict[str, Any] = {}
    for stage in STAGES:
        seed = figures["transformers"]["prompt_seed"] if stage == "osler" else 0
        command = [sys.executable, __file__, str(folder), "--stage", stage, "--seed", str(seed)]
        if layers is not None:
            command += ["--layers", str(layers)]
        # Sums in bfloat16 depend on how many threads share them.
        threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=threads)
        figures[stage] = json.loads(done.stdout.splitlines()[-1])
    file_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return figures | {
        "file_bytes": file_bytes,
        "shards": len(list(folder.glob("*.safetensors"))),
        "peak_over_files": round(figures["osler"]["peak_bytes"] / file_bytes, 3),
        "same_tokens": figures["osler"]["tokens"] == figures["transformers"]["tokens"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, help="of decoder and vision tower; default: all")
    parser.add_argument("--stage", choices=STAGES, help="run one stage only, in this process")
    parser.add_argument("--seed", type=int, default=0, help="of a stage's weights or prompt")
    arguments = parser.parse_args()
    folder, layers = arguments.folder, arguments.layers
    if arguments.stage:
        figures = STAGES[arguments.stage](folder, layers, arguments.seed)
    else:
        figures = measure(folder, layers)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
