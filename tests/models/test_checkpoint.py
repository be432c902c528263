"""Folders both ways: what transformers saves Osler loads, and the other way round."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from osler.errors import CheckpointError
from osler.inference.runner import Chunk
from osler.inference.torch_runner import TorchRunner
from osler.models.checkpoint import (
    load_medgemma,
    load_medsiglip,
    save_medgemma,
    save_medsiglip,
)
from osler.models.config import MedGemmaConfig
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.testing.models import (
    randomise,
    tiny_medgemma,
    tiny_medgemma_text,
    tiny_medsiglip,
)
from osler.testing.reference import medgemma_pair, medsiglip_pair

NEW_TOKENS = 12


def medgemma(config: MedGemmaConfig) -> MedGemma:
    model = MedGemma(config)
    randomise(model)
    return model


def assert_same_weights(ours: nn.Module, other: nn.Module) -> None:
    mine, others = ours.state_dict(), other.state_dict()
    assert mine.keys() == others.keys()
    for key, tensor in mine.items():
        assert tensor.dtype == others[key].dtype
        assert tensor.equal(others[key]), key


def prompt(config: MedGemmaConfig) -> tuple[Tensor, Tensor | None]:
    ids = [2, 9, 17, 40]
    if config.vision_config is None:
        return torch.tensor([ids]), None
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(1, 3, 56, 56, generator=generator) * 2 - 1
    image = [config.boi_token_id, *[config.image_token_id] * 4, config.eoi_token_id]
    return torch.tensor([ids + image + ids]), pixels


def our_tokens(model: MedGemma) -> list[int]:
    ids, pixels = prompt(model.config)
    runner = TorchRunner(model)
    runner.allocate(1, 1)
    soft_TD = None if pixels is None else np.concatenate(runner.embed_images(pixels.numpy()))
    new, start, tokens = ids[0].tolist(), 0, list[int]()
    for _ in range(NEW_TOKENS):
        chunk = Chunk(
            ids=new, start=start, global_pages=[0], local_pages=[0], soft_TD=soft_TD, logits=1
        )
        start += len(new)
        soft_TD, new = None, runner.forward([chunk]).argmax(axis=-1).tolist()
        tokens += new
    return tokens


def their_tokens(model: Any, config: MedGemmaConfig) -> list[int]:
    ids, pixels = prompt(config)
    images = {}
    if pixels is not None:
        is_image = (ids == config.image_token_id).long()
        images = {"pixel_values": pixels.to(model.dtype), "token_type_ids": is_image}
    output = model.generate(
        input_ids=ids, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, **images
    )
    tokens: list[int] = output[0, ids.shape[1] :].tolist()
    return tokens


def their_model(folder: Path, config: MedGemmaConfig) -> Any:
    """Load in transformers, with no weight missing or left over."""
    auto = transformers.AutoModelForCausalLM
    if config.vision_config is not None:
        auto = transformers.AutoModelForImageTextToText
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model


@pytest.mark.parametrize("max_shard_bytes", [10**9, 60_000], ids=["single", "sharded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config", [tiny_medgemma(), tiny_medgemma_text()], ids=["multimodal", "text"]
)
def test_saved_by_osler_both_generate_the_same(
    tmp_path: Path, config: MedGemmaConfig, dtype: torch.dtype, max_shard_bytes: int
) -> None:
    model = medgemma(config).to(dtype)
    save_medgemma(model, tmp_path, max_shard_bytes=max_shard_bytes)
    assert (tmp_path / "model.safetensors").exists() == (max_shard_bytes == 10**9)
    loaded = load_medgemma(tmp_path)
    assert loaded.config == config
    assert_same_weights(loaded, model)
    theirs = their_model(tmp_path, config)
    assert theirs.dtype == dtype
    tokens = our_tokens(loaded)
    assert len(set(tokens)) >= 3  # one token over and over would prove little
    assert tokens == their_tokens(theirs, config)


@pytest.mark.parametrize("max_shard_size", ["1GB", "60KB"], ids=["single", "sharded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config", [tiny_medgemma(), tiny_medgemma_text()], ids=["multimodal", "text"]
)
def test_saved_by_transformers_osler_generates_the_same(
    tmp_path: Path, config: MedGemmaConfig, dtype: torch.dtype, max_shard_size: str
) -> None:
    pair = medgemma_pair(config, dtype)
    pair.theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors").exists() == (max_shard_size == "1GB")
    loaded = load_medgemma(tmp_path)
    assert loaded.config.text_config == config.text_config
    assert_same_weights(loaded, pair.ours)
    tokens = our_tokens(loaded)
    assert len(set(tokens)) >= 3
    assert tokens == their_tokens(pair.theirs, config)


def test_medsiglip_both_ways(tmp_path: Path) -> None:
    pair = medsiglip_pair(tiny_medsiglip())
    pair.theirs.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    loaded = load_medsiglip(tmp_path / "theirs")
    assert_same_weights(loaded, pair.ours)
    save_medsiglip(loaded, tmp_path / "ours")
    theirs, info = transformers.SiglipModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values()), info
    assert_same_weights(theirs, pair.theirs)


# Our prefixes and the file's, and the head's name, for each layout in the wild.
LAYOUTS = {
    "released": (
        "language_model.model.",
        "vision_tower.vision_model.",
        "multi_modal_projector.",
        "language_model.lm_head.weight",
    ),
    "saved by transformers 5": (
        "language_model.model.",
        "vision_tower.",
        "multi_modal_projector.",
        "language_model.lm_head.weight",
    ),
    "state dict since 4.52": (
        "model.language_model.",
        "model.vision_tower.vision_model.",
        "model.multi_modal_projector.",
        "lm_head.weight",
    ),
    "state dict since 5": (
        "model.language_model.",
        "model.vision_tower.",
        "model.multi_modal_projector.",
        "lm_head.weight",
    ),
}


def renamed(model: MedGemma, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    ours = ("language_model.", "vision_tower.", "multi_modal_projector.")
    return {
        theirs + key.removeprefix(mine): tensor
        for mine, theirs in zip(ours, prefixes, strict=False)
        for key, tensor in model.state_dict().items()
        if key.startswith(mine)
    }


@pytest.mark.parametrize("head", ["no head", "head"])
@pytest.mark.parametrize("names", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_multimodal_layout_loads(tmp_path: Path, names: tuple[str, ...], head: str) -> None:
    model = medgemma(tiny_medgemma())
    save_medgemma(model, tmp_path)
    weights = renamed(model, names)
    if head == "head":
        weights[names[3]] = model.language_model.embed_tokens.weight.detach().clone()
    save_file(weights, tmp_path / "model.safetensors")
    assert_same_weights(load_medgemma(tmp_path), model)


@pytest.mark.parametrize("head", ["no head", "head"])
def test_text_layout_loads(tmp_path: Path, head: str) -> None:
    model = medgemma(tiny_medgemma_text())
    save_medgemma(model, tmp_path)
    weights = renamed(model, ("model.",))
    if head == "head":
        weights["lm_head.weight"] = model.language_model.embed_tokens.weight.detach().clone()
    save_file(weights, tmp_path / "model.safetensors")
    assert_same_weights(load_medgemma(tmp_path), model)


def test_transformers_reads_our_layout_as_the_released_one(tmp_path: Path) -> None:
    save_medgemma(medgemma(tiny_medgemma()), tmp_path)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in keys
    assert "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight" in keys
    assert "multi_modal_projector.mm_soft_emb_norm.weight" in keys


def test_a_head_of_its_own_is_refused(tmp_path: Path) -> None:
    model = medgemma(tiny_medgemma_text())
    save_medgemma(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    head[3, 5] += 1
    save_file(weights | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens"):
        load_medgemma(tmp_path)


def test_dtype_is_the_files_or_the_callers(tmp_path: Path) -> None:
    model = medgemma(tiny_medgemma()).to(torch.bfloat16)
    save_medgemma(model, tmp_path)
    assert {p.dtype for p in load_medgemma(tmp_path).parameters()} == {torch.bfloat16}
    wide = load_medgemma(tmp_path, dtype=torch.float32)
    assert_same_weights(wide, model.float())


def test_mixed_dtypes_need_a_choice(tmp_path: Path) -> None:
    save_medgemma(medgemma(tiny_medgemma_text()), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].bfloat16()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds BF16 and F32; name the dtype"):
        load_medgemma(tmp_path)
    model = load_medgemma(tmp_path, dtype=torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_loaded_model_can_be_trained_without_touching_the_file(tmp_path: Path) -> None:
    save_medsiglip(MedSiglip(tiny_medsiglip()), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = load_medsiglip(tmp_path)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for parameter in model.parameters():
        parameter.add_(1)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert model.logit_scale.item() == 1.0


def test_saving_over_the_folder_it_came_from(tmp_path: Path) -> None:
    model = medgemma(tiny_medgemma())
    save_medgemma(model, tmp_path, max_shard_bytes=60_000)
    (tmp_path / "tokenizer.json").write_text("{}")
    loaded = load_medgemma(tmp_path)
    save_medgemma(loaded, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert_same_weights(load_medgemma(tmp_path), model)


def test_a_failed_save_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = medgemma(tiny_medgemma())
    save_medgemma(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("osler.models.safetensors_file.save_file", full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_medgemma(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupted_save_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two shards: neither the old model nor a mixture loads."""
    model = medgemma(tiny_medgemma())
    save_medgemma(model, tmp_path, max_shard_bytes=60_000)
    replace = Path.replace
    moved: list[Path] = []

    def interrupted(self: Path, target: Path) -> Path:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_medgemma(model, tmp_path, max_shard_bytes=60_000)
    monkeypatch.undo()
    assert not list(tmp_path.glob(".saving-*"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_medgemma(tmp_path)


def test_the_index_says_what_is_where(tmp_path: Path) -> None:
    model = medgemma(tiny_medgemma())
    save_medgemma(model, tmp_path, max_shard_bytes=60_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in model.state_dict().values())
    for name in sorted(set(index["weight_map"].values())):
        held = load_file(tmp_path / name)
        assert held.keys() == {key for key, file in index["weight_map"].items() if file == name}
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= 60_000


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_medsiglip(MedSiglip(tiny_medsiglip()), tmp_path / "file")


def test_who_may_read_the_configuration_may_read_the_weights(tmp_path: Path) -> None:
    save_medgemma(medgemma(tiny_medgemma()), tmp_path)
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]
