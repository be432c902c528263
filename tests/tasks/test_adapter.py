"""Adapters both ways: what PEFT saves Osler loads, and the other way round."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from osler.errors import CheckpointError, UnsupportedError
from osler.models.checkpoint import load_medgemma, save_medgemma
from osler.models.config import MedGemmaConfig
from osler.models.lora import (
    ALL_LINEAR,
    LoraConfig,
    add_lora,
    lora_layers,
    merge_lora,
    target_names,
)
from osler.models.medgemma import MedGemma
from osler.tasks.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    base_model,
    load_adapter,
    save_adapter,
)
from osler.testing.models import randomise, tiny_medgemma, tiny_medgemma_text

CONFIG = LoraConfig(rank=3, alpha=7.0, dropout=0.1)
IDS = torch.tensor([[2, 10, 121, 120, 120, 120, 120, 122, 11, 12, 13, 14, 15, 16, 17, 18]])

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture(params=[tiny_medgemma, tiny_medgemma_text], ids=["images", "text"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that holds a base model."""
    return save_base(request.param(), tmp_path / "base")


def save_base(config: MedGemmaConfig, folder: Path) -> Path:
    model = MedGemma(config)
    randomise(model)
    save_medgemma(model, folder)
    return folder


def with_adapter(base: Path, targets: str | tuple[str, ...] = ALL_LINEAR) -> MedGemma:
    """A model whose adapters do something: at the start their products are zero."""
    model = load_medgemma(base)
    add_lora(model, CONFIG, target_names(model, targets))
    randomise_adapters(nn.ModuleList(layer for _, layer in lora_layers(model)))
    return model.eval()


def randomise_adapters(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def theirs(base: Path) -> Any:
    transformers.utils.logging.disable_progress_bar()
    kind = transformers.AutoModelForCausalLM
    if "vision_config" in json.loads((base / "config.json").read_text()):
        kind = transformers.AutoModelForImageTextToText
    return kind.from_pretrained(base)


def ids_and_pixels(model: MedGemma) -> tuple[Tensor, Tensor | None]:
    if model.config.vision_config is None:
        return torch.where(IDS >= 120, 5, IDS), None
    generator = torch.Generator().manual_seed(2)
    return IDS, torch.rand((1, 3, 56, 56), generator=generator) * 2 - 1


@torch.no_grad()
def our_logits(model: MedGemma) -> Tensor:
    ids_BL, pixels_NCSS = ids_and_pixels(model)
    logits: Tensor = model(ids_BL, pixels_NCSS=pixels_NCSS)
    return logits


@torch.no_grad()
def their_logits(model: Any, ours: MedGemma) -> Tensor:
    ids_BL, pixels_NCSS = ids_and_pixels(ours)
    images = {}
    if pixels_NCSS is not None:
        images = {"pixel_values": pixels_NCSS, "token_type_ids": (ids_BL == 120).long()}
    logits: Tensor = model.eval()(input_ids=ids_BL, **images).logits
    return logits


@pytest.mark.parametrize("targets", [ALL_LINEAR, ("q_proj", "fc1", "down_proj")])
def test_peft_computes_with_ours_what_we_do(tmp_path: Path, targets: str | tuple[str, ...]) -> None:
    base = save_base(tiny_medgemma(), tmp_path / "base")
    ours = with_adapter(base, targets)
    save_adapter(ours, CONFIG, tmp_path / "adapter", base=str(base))
    reference = peft.PeftModel.from_pretrained(theirs(base), tmp_path / "adapter")
    wanted = our_logits(ours)
    torch.testing.assert_close(their_logits(reference, ours), wanted, atol=1e-4, rtol=0)
    assert (our_logits(load_medgemma(base)) - wanted).abs().max() > 0.1


def test_peft_finds_every_factor_of_ours(base: Path, tmp_path: Path) -> None:
    ours = with_adapter(base)
    save_adapter(ours, CONFIG, tmp_path / "adapter", base=str(base))
    reference = peft.PeftModel.from_pretrained(theirs(base), tmp_path / "adapter")
    theirs_by_key = peft.get_peft_model_state_dict(reference)
    ours_by_key = load_file(tmp_path / "adapter" / WEIGHTS_FILE)
    assert len(theirs_by_key) == len(ours_by_key) == 2 * len(list(lora_layers(ours)))
    for key, tensor in ours_by_key.items():
        in_tree = key.replace("vision_tower.vision_model.", "vision_tower.")
        assert torch.equal(theirs_by_key[in_tree], tensor), key


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_we_compute_with_pefts_what_it_does(
    base: Path, tmp_path: Path, rank_stabilised: bool
) -> None:
    settings = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=ALL_LINEAR, use_rslora=rank_stabilised
    )
    reference = peft.get_peft_model(theirs(base), settings)
    randomise_adapters(reference)
    reference.save_pretrained(tmp_path / "adapter")
    ours = load_medgemma(base)
    plain = our_logits(ours)
    load_adapter(ours, tmp_path / "adapter")
    wanted = their_logits(reference, ours)
    torch.testing.assert_close(our_logits(ours.eval()), wanted, atol=1e-4, rtol=0)
    assert (plain - wanted).abs().max() > 0.1
    assert base_model(tmp_path / "adapter") == str(base)


@pytest.mark.parametrize(
    "moved",
    [
        {"model.vision_tower.vision_model.": "model.vision_tower."},  # transformers 5.23
        {
            "model.language_model.": "language_model.model.",
            "model.vision_tower.": "vision_tower.",
        },  # before 4.52
    ],
)
def test_adapters_of_other_transformers_load(tmp_path: Path, moved: dict[str, str]) -> None:
    base = save_base(tiny_medgemma(), tmp_path / "base")
    ours = with_adapter(base)
    save_adapter(ours, CONFIG, tmp_path / "adapter", base=str(base))
    path = tmp_path / "adapter" / WEIGHTS_FILE
    tensors = load_file(path)
    for new, old in moved.items():
        tensors = {key.replace(f".{new}", f".{old}", 1): value for key, value in tensors.items()}
    assert tensors.keys() != load_file(path).keys()
    save_file(tensors, path)
    again = load_medgemma(base)
    load_adapter(again, tmp_path / "adapter")
    assert torch.equal(our_logits(again.eval()), our_logits(ours))


def test_merging_makes_an_ordinary_model_of_the_same_logits(base: Path) -> None:
    model = with_adapter(base)
    wanted, keys = our_logits(model), load_medgemma(base).state_dict().keys()
    merge_lora(model)
    assert model.state_dict().keys() == keys
    torch.testing.assert_close(our_logits(model), wanted, atol=1e-5, rtol=0)


def edit(adapter: Path, **changes: object) -> None:
    values = json.loads((adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps(values | changes))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("use_dora", True),
        ("modules_to_save", ["embed_tokens"]),
        ("alpha_pattern", {"q_proj": 3}),
        ("bias", "all"),
    ],
)
def test_other_kinds_of_adapters_are_refused(tmp_path: Path, field: str, value: object) -> None:
    base = save_base(tiny_medgemma(), tmp_path / "base")
    save_adapter(with_adapter(base), CONFIG, tmp_path / "adapter", base=str(base))
    edit(tmp_path / "adapter", **{field: value})
    with pytest.raises(UnsupportedError, match=f"{CONFIG_FILE}: {field} is "):
        load_adapter(load_medgemma(base), tmp_path / "adapter")


def test_damaged_adapters_are_refused(tmp_path: Path) -> None:
    base = save_base(tiny_medgemma(), tmp_path / "base")
    adapter = tmp_path / "adapter"
    path = adapter / WEIGHTS_FILE
    ours = with_adapter(base)

    def refused(reason: str) -> None:
        with pytest.raises(CheckpointError, match=reason):
            load_adapter(load_medgemma(base), adapter)
        save_adapter(ours, CONFIG, adapter, base=str(base))

    save_adapter(ours, CONFIG, adapter, base=str(base))
    edit(adapter, r=4)
    refused(r"lora_A.weight is \[3, .*\], not \[4, ")
    edit(adapter, r="3")
    refused("is no number")
    edit(adapter, r=0)
    refused("rank is 0")
    tensors = load_file(path)
    save_file(tensors | {"base_model.model.lm_head.lora_A.weight": torch.zeros(3, 4)}, path)
    refused("nothing in the model is base_model.model.lm_head.lora_A.weight")
    save_file(dict(list(tensors.items())[1:]), path)
    refused("without its other factor")
    path.write_bytes(path.read_bytes()[:500])
    refused("truncated or corrupted")
    path.unlink()
    refused("no such file")
    edit(adapter, base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="names no base model"):
        base_model(adapter)
