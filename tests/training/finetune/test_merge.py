"""Adapters to ordinary checkpoints, and the figure that lets them through."""

import json
from pathlib import Path

import pytest
import torch

import osler
from osler.errors import CheckpointError, ModelNotFoundError
from osler.models.checkpoint import load_medgemma, save_medgemma
from osler.models.lora import LoraConfig, add_lora, lora_layers, target_names
from osler.models.nf4 import hold_in_4_bits
from osler.tasks.adapter import RECORD, load_adapter, save_adapter
from osler.tasks.checkpoint_extras import carry_over
from osler.training.finetune.merge import LIMITS, merge
from tests.conftest import NOTICE

CONFIG = LoraConfig(rank=3, alpha=6.0)
IDS = torch.tensor([[2, 10, 11, 12, 13, 14, 15, 16]])


@pytest.fixture(scope="session")
def bf16_folder(medgemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bf16")
    save_medgemma(load_medgemma(medgemma_folder, dtype=torch.bfloat16), folder)
    carry_over(medgemma_folder, folder, NOTICE)
    return folder


def adapter_of(base: Path, folder: Path, *, size: float = 0.05) -> Path:
    model = load_medgemma(base)
    add_lora(model, CONFIG, target_names(model))
    generator = torch.Generator().manual_seed(0)
    for _, layer in lora_layers(model):
        for factor in (layer.lora_A, layer.lora_B):
            factor.weight.data = torch.randn(factor.weight.shape, generator=generator) * size
    save_adapter(model, CONFIG, folder, base=str(base))
    return folder


@torch.no_grad()
def logits_of(base: Path, adapter: Path | None = None, *, four_bits: bool = False) -> torch.Tensor:
    model = load_medgemma(base)
    if four_bits:
        hold_in_4_bits(model)
    if adapter is not None:
        load_adapter(model, adapter)
    logits: torch.Tensor = model.eval()(IDS)
    return logits


def test_the_checkpoint_gives_the_adapters_logits(medgemma_folder: Path, tmp_path: Path) -> None:
    adapter = adapter_of(medgemma_folder, tmp_path / "adapter")
    merged = merge(adapter, tmp_path / "out")
    wanted = logits_of(medgemma_folder, adapter)
    assert merged.dtype == "float32"
    assert merged.limit == LIMITS[torch.float32]
    assert 0 < merged.largest_difference < 1e-4
    assert merged.same_choice == 1
    torch.testing.assert_close(logits_of(tmp_path / "out"), wanted, atol=1e-4, rtol=0)
    assert (logits_of(medgemma_folder) - wanted).abs().max() > 0.1
    answer = osler.load(tmp_path / "out").ask("What?", max_new_tokens=2)
    assert answer.notice.startswith(NOTICE)


def test_in_bfloat16_it_says_by_how_much_it_rounds(bf16_folder: Path, tmp_path: Path) -> None:
    adapter = adapter_of(bf16_folder, tmp_path / "adapter")
    merged = merge(adapter, tmp_path / "out", limit=10)
    assert merged.dtype == "bfloat16"
    assert merged.largest_difference > 1e-3
    exact = merge(adapter, tmp_path / "wide", dtype="float32")
    assert exact.largest_difference < 1e-4


def test_beyond_the_limit_nothing_is_written(bf16_folder: Path, tmp_path: Path) -> None:
    adapter = adapter_of(bf16_folder, tmp_path / "adapter", size=0.3)
    said = r"a logit moves by [\d.e+-]+, more than 0.001; nothing is written"
    with pytest.raises(CheckpointError, match=said):
        merge(adapter, tmp_path / "out", limit=0.001)
    assert not (tmp_path / "out").exists()


def test_an_adapter_over_4_bits_is_merged_into_what_they_stand_for(
    medgemma_folder: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(medgemma_folder, tmp_path / "adapter")
    (adapter / RECORD).write_text(json.dumps({"method": "qlora"}))
    merge(adapter, tmp_path / "out")
    wanted = logits_of(medgemma_folder, adapter, four_bits=True)
    torch.testing.assert_close(logits_of(tmp_path / "out"), wanted, atol=1e-4, rtol=0)
    assert (logits_of(medgemma_folder, adapter) - wanted).abs().max() > 0.01


def test_layers_in_4_bits_without_an_adapter_are_merged_as_well(
    medgemma_folder: Path, tmp_path: Path
) -> None:
    model = load_medgemma(medgemma_folder)
    add_lora(model, CONFIG, target_names(model, ("q_proj",)))
    save_adapter(model, CONFIG, tmp_path / "adapter", base=str(medgemma_folder))
    (tmp_path / "adapter" / RECORD).write_text(json.dumps({"method": "qlora"}))
    merge(tmp_path / "adapter", tmp_path / "out")
    wanted = logits_of(medgemma_folder, four_bits=True)
    torch.testing.assert_close(logits_of(tmp_path / "out"), wanted, atol=1e-4, rtol=0)


def test_what_cannot_be_merged(medgemma_folder: Path, tmp_path: Path) -> None:
    adapter = adapter_of(medgemma_folder, tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="not empty"):
        merge(adapter, adapter)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: no such file"):
        merge(medgemma_folder, tmp_path / "out")
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        merge(adapter, tmp_path / "out", base=tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="float16"):
        merge(adapter, tmp_path / "out", dtype="float16")
    # An adapter of another model: the nano has other sizes.
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: .* is \[3, "):
        merge(adapter, tmp_path / "out", base="nano")


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_adapter_answers_without_being_merged(
    medgemma_folder: Path, tmp_path: Path, method: str
) -> None:
    adapter = adapter_of(medgemma_folder, tmp_path / "adapter")
    (adapter / RECORD).write_text(json.dumps({"method": method}))
    model = osler.load(adapter)
    wanted = logits_of(medgemma_folder, adapter, four_bits=method == "qlora")
    torch.testing.assert_close(model.logits(IDS), wanted, atol=1e-5, rtol=0)
    answer = model.ask("What?", max_new_tokens=3)
    assert answer.notice.startswith(NOTICE)
    merge(adapter, tmp_path / "out")
    assert osler.load(tmp_path / "out").ask("What?", max_new_tokens=3).text == answer.text
    with pytest.raises(CheckpointError, match="osler merge"):
        model.save(tmp_path / "saved")


def test_an_adapter_whose_base_is_not_there(medgemma_folder: Path, tmp_path: Path) -> None:
    adapter = adapter_of(medgemma_folder, tmp_path / "adapter")
    config = adapter / "adapter_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(ModelNotFoundError, match="gone"):
        osler.load(adapter)
    config.write_text(json.dumps({**values, "base_model_name_or_path": ""}))
    with pytest.raises(CheckpointError, match="names no base model"):
        osler.load(adapter)
