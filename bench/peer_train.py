"""What users train with today, on a case of `bench/train_cases.py`: one run, one line of JSON.

    PYTHON bench/peer_train.py trainer PHASE --case FOLDER
    PYTHON bench/peer_train.py open_clip contrastive --case FOLDER
    PYTHON bench/peer_train.py trl reinforce --case FOLDER

Runs where transformers, accelerate and peft (trl, bitsandbytes, open_clip_torch) are installed,
without Osler: the same weights, batches, precision and optimiser as `bench/train_ours.py`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

LEARNING_RATE = 1e-3
ANSWERS, NEW_TOKENS = 8, 32

Result = dict[str, Any]
# Seconds by the clock, and of the processor.
Moment = tuple[float, float]


def trainer(given: argparse.Namespace) -> Result:
    """The Hugging Face Trainer."""
    from torch.utils.data import Dataset, SequentialSampler
    from transformers import Trainer, TrainerCallback, TrainingArguments

    stored = load_file(given.case / "batches.safetensors")
    model, make, units = _CASES[given.phase](given.case, stored)
    steps = given.warm_up + given.steps
    taught = given.phase == "distill"

    class Batches(Dataset[Any]):
        def __len__(self) -> int:
            return steps

        def __getitem__(self, index: int) -> Any:
            return make(index % 2)

    times: list[Moment] = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(_now())

        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    class Own(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, model: nn.Module, inputs: Any, *more: Any, **named: Any) -> Any:
            if not taught:
                return super().compute_loss(model, inputs, *more, **named)
            top_ids, top_logits = inputs.pop("top_ids"), inputs.pop("top_logits")
            logits = model(**inputs).logits.flatten(0, 1)
            share = top_logits.float().softmax(dim=-1)
            own = logits.float().log_softmax(dim=-1).gather(1, top_ids)
            return F.kl_div(own, share, reduction="batchmean")

    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            bf16=True,
            use_cpu=True,
            torch_compile=given.compile,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        start = _now()
        Own(
            model=model,
            args=settings,
            train_dataset=Batches(),
            data_collator=lambda rows: rows[0],
            callbacks=[Clock()],
        ).train()
    return _result(given, [start, *times], losses, units)


def open_clip(given: argparse.Namespace) -> Result:
    """open_clip's own training loop over its own modules, with the same weights."""
    from open_clip.loss import SigLipLoss
    from open_clip_train.train import train_one_epoch

    stored = load_file(given.case / "batches.safetensors")
    steps = given.warm_up + given.steps
    model = _open_clip_model(given.case / "medsiglip")
    times, losses = [_now()], []

    class Timed(SigLipLoss):
        def forward(self, *inputs: Any, **named: Any) -> Any:
            found = super().forward(*inputs, **named)
            losses.append(float(found["contrastive_loss"].detach()))
            return found

    class Loader:
        num_batches, num_samples = steps, steps * len(stored["pairs.ids"][0])

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for step in range(steps):
                yield stored["pairs.pixels"][step % 2], stored["pairs.ids"][step % 2]
                times.append(_now())

    class Data:
        dataloader = Loader()

        def set_epoch(self, epoch: int) -> None:
            pass

    settings = argparse.Namespace(
        device="cpu",
        precision="amp_bf16",
        distill=False,
        accum_freq=1,
        skip_scheduler=True,
        grad_clip_norm=1.0,
        log_every_n_steps=10**9,
        rank=0,
        local_rank=0,
        log_local=False,
        world_size=1,
        batch_size=len(stored["pairs.ids"][0]),
        horovod=False,
        wandb=False,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    train_one_epoch(model, {"train": Data()}, Timed(), 0, optimizer, None, None, None, settings)
    return _result(given, times, losses, settings.batch_size)


def trl(given: argparse.Namespace) -> Result:
    """TRL's GRPO: answers drawn by transformers, and learnt from."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    prompts = load_file(given.case / "batches.safetensors")["prompts.ids"]
    tokenizer = AutoTokenizer.from_pretrained(given.case / "medgemma")
    model = _gemma(given.case)
    # Text only: the decoder alone, as a causal model.
    text = AutoModelForCausalLM.from_config(model.config.get_text_config(), dtype=torch.float32)
    text.model.load_state_dict(model.model.language_model.state_dict())
    text.tie_weights()
    folder = tempfile.TemporaryDirectory()  # from which TRL loads what it compares with
    text.save_pretrained(folder.name)
    text = AutoModelForCausalLM.from_pretrained(folder.name, dtype=torch.float32)
    times: list[Moment] = []
    steps = given.warm_up + given.steps

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(_now())

    with tempfile.TemporaryDirectory() as out:
        settings = GRPOConfig(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=len(prompts) * ANSWERS,
            num_generations=ANSWERS,
            max_completion_length=NEW_TOKENS,
            temperature=1.0,
            beta=0.04,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            bf16=True,
            use_cpu=True,
            gradient_checkpointing=False,
            loss_type="grpo",
            generation_kwargs={"min_new_tokens": NEW_TOKENS},
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        asked = [{"prompt": tokenizer.decode(ids)} for ids in prompts.tolist()]
        learner = GRPOTrainer(
            model=text,
            reward_funcs=lambda completions, **_: [
                one.count("e") / max(1, len(one)) for one in completions
            ],
            args=settings,
            train_dataset=Dataset.from_list(asked * steps),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        start = _now()
        learner.train()
    losses = [line["loss"] for line in learner.state.log_history if "loss" in line]
    return _result(given, [start, *times], losses, len(prompts) * ANSWERS * NEW_TOKENS)


def _result(
    given: argparse.Namespace, times: list[Moment], losses: list[float], units: int
) -> Result:
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(times)]
    return {
        "step_s": [wall for wall, _ in steps[given.warm_up :]],
        "step_cpu_s": [cpu for _, cpu in steps[given.warm_up :]],
        "start_s": times[given.warm_up][0] - times[0][0],
        "units": units,
        "losses": losses,
        "peak_bytes": _peak_bytes(),
    }


def _now() -> Moment:
    return time.perf_counter(), time.process_time()


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _gemma(case: Path, **named: Any) -> Any:
    from transformers import Gemma3ForConditionalGeneration

    return Gemma3ForConditionalGeneration.from_pretrained(
        case / "medgemma", **({"dtype": torch.float32} | named)
    )


def _contrastive(case: Path, stored: dict[str, Tensor]) -> Any:
    from transformers import SiglipModel

    def make(turn: int) -> dict[str, Any]:
        return {
            "input_ids": stored["pairs.ids"][turn],
            "pixel_values": stored["pairs.pixels"][turn],
            "return_loss": True,
        }

    model = SiglipModel.from_pretrained(case / "medsiglip", dtype=torch.float32)
    return model, make, len(stored["pairs.ids"][0])


def _text(case: Path, stored: dict[str, Tensor]) -> Any:
    model = _gemma(case)
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(False)

    def make(turn: int) -> dict[str, Any]:
        ids = stored["text.ids"][turn]
        return {"input_ids": ids, "labels": ids, "token_type_ids": torch.zeros_like(ids)}

    return model, make, stored["text.ids"][0][:, 1:].numel()


def _distill(case: Path, stored: dict[str, Tensor]) -> Any:
    model, _, units = _text(case, stored)

    def make(turn: int) -> dict[str, Any]:
        ids = stored["text.ids"][turn][:, :-1]
        return {
            "input_ids": ids,
            "token_type_ids": torch.zeros_like(ids),
            "top_ids": stored["taught.ids"][turn],
            "top_logits": stored["taught.logits"][turn],
        }

    return model, make, units


def _talk(case: Path, stored: dict[str, Tensor], model: Any = None) -> Any:
    if model is None:
        model = _gemma(case)
        model.model.vision_tower.requires_grad_(False)
    image = model.config.image_token_id

    def make(turn: int) -> dict[str, Any]:
        ids, learn = stored["talk.ids"][turn], stored["talk.learn"][turn]
        return {
            "input_ids": ids,
            "labels": ids.masked_fill(~learn, -100),
            "pixel_values": stored["talk.pixels"][turn],
            "token_type_ids": (ids == image).long(),
        }

    return model, make, stored["talk.ids"][0][:, 1:].numel()


def _lora(case: Path, stored: dict[str, Tensor], **named: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(
        _gemma(case, dtype=torch.bfloat16, **named),
        LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"),
    )
    return _talk(case, stored, model)


def _qlora(case: Path, stored: dict[str, Tensor]) -> Any:
    from transformers import BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    return _lora(case, stored, quantization_config=four_bits)


_CASES = {
    "contrastive": _contrastive,
    "text": _text,
    "talk": _talk,
    "distill": _distill,
    "full": lambda case, stored: _talk(case, stored, _gemma(case)),
    "lora": _lora,
    "qlora": _qlora,
}


def _open_clip_model(folder: Path) -> nn.Module:
    """A model of the same shapes and weights, of open_clip's and timm's own modules."""
    import timm
    from open_clip.model import CustomTextCLIP
    from timm.models.vision_transformer import VisionTransformer

    config = json.loads((folder / "config.json").read_text())
    vision, text = config["vision_config"], config["text_config"]

    def osler_siglip(pretrained: bool = False, **named: Any) -> nn.Module:
        named = {n: v for n, v in named.items() if not n.startswith(("pretrained", "cache"))}
        return VisionTransformer(
            img_size=vision["image_size"],
            patch_size=vision["patch_size"],
            embed_dim=vision["hidden_size"],
            depth=vision["num_hidden_layers"],
            num_heads=vision["num_attention_heads"],
            mlp_ratio=vision["intermediate_size"] / vision["hidden_size"],
            class_token=False,
            act_layer="gelu_tanh",
            **named,
        )

    timm.models.register_model(osler_siglip)
    made = CustomTextCLIP(
        vision["hidden_size"],
        {
            "image_size": vision["image_size"],
            "timm_model_name": "osler_siglip",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
        },
        init_logit_bias=-10.0,
        nonscalar_logit_scale=True,
        output_dict=True,
    )
    made.load_state_dict(dict(_renamed(load_file(folder / "model.safetensors"), made)))
    return made


def _renamed(stored: dict[str, Tensor], model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """transformers' SigLIP weights under open_clip's names."""
    parts = (
        ("visual.trunk.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
        ("visual.trunk.blocks.", "vision_model.encoder.layers."),
        ("visual.trunk.norm.", "vision_model.post_layernorm."),
        ("visual.trunk.attn_pool.norm.", "vision_model.head.layernorm."),
        ("visual.trunk.attn_pool.mlp.", "vision_model.head.mlp."),
        ("visual.trunk.attn_pool.proj.", "vision_model.head.attention.out_proj."),
        ("text.transformer.resblocks.", "text_model.encoder.layers."),
        ("text.ln_final.", "text_model.final_layer_norm."),
        ("text.text_projection.", "text_model.head."),
        (".attn.out_proj.", ".self_attn.out_proj."),
        (".attn.proj.", ".self_attn.out_proj."),
        (".norm1.", ".layer_norm1."),
        (".norm2.", ".layer_norm2."),
        (".ln_1.", ".layer_norm1."),
        (".ln_2.", ".layer_norm2."),
        (".c_fc.", ".fc1."),
        (".c_proj.", ".fc2."),
    )
    pool = "vision_model.head.attention.in_proj_"
    width = stored["vision_model.head.probe"].shape[-1]
    for name, wanted in model.state_dict().items():
        there = name
        for new, old in parts:
            there = there.replace(new, old)
        stem, _, kind = there.rpartition(".")
        if name.startswith(("visual.trunk.attn_pool.q.", "visual.trunk.attn_pool.kv.")):
            rows = slice(width) if ".q." in name else slice(width, None)
            found = stored[f"{pool}{kind}"][rows]
        elif there.endswith((".attn.qkv.weight", ".attn.qkv.bias")):
            stem = stem.removesuffix(".attn.qkv")
            found = torch.cat([stored[f"{stem}.self_attn.{x}_proj.{kind}"] for x in "qkv"])
        elif there.endswith((".attn.in_proj_weight", ".attn.in_proj_bias")):
            stem, kind = stem.removesuffix(".attn"), kind.removeprefix("in_proj_")
            found = torch.cat([stored[f"{stem}.self_attn.{x}_proj.{kind}"] for x in "qkv"])
        else:
            found = stored[
                {
                    "visual.trunk.pos_embed": "vision_model.embeddings.position_embedding.weight",
                    "visual.trunk.attn_pool.latent": "vision_model.head.probe",
                    "text.positional_embedding": "text_model.embeddings.position_embedding.weight",
                    "text.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
                }.get(name, there)
            ]
        if name == "text.text_projection" or (".text_projection" in name and kind == "weight"):
            found = found if found.shape == wanted.shape else found.T
        yield name, found.reshape(wanted.shape)


def main() -> None:
    """Train, and say how fast."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    peers = {"trainer": trainer, "open_clip": open_clip, "trl": trl}
    parser.add_argument("peer", choices=peers)
    parser.add_argument("phase", choices=[*_CASES, "reinforce"])
    parser.add_argument("--case", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not counted")
    parser.add_argument("--compile", action="store_true", help="the Trainer's torch_compile")
    given = parser.parse_args()
    sys.stdout.write(json.dumps(peers[given.peer](given)) + "\n")


if __name__ == "__main__":
    main()
