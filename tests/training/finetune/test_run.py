"""Fine-tuning from a folder of pictures to a result, on a tiny model."""

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers

import osler
from osler.errors import CheckpointError, InputError, PromptError, UnreadableFileError
from osler.models.checkpoint import load_medgemma, save_medgemma
from osler.models.lora import LoraConfig
from osler.models.medgemma import MedGemma
from osler.tasks.adapter import RECORD, load_adapter
from osler.testing.models import randomise
from osler.testing.tokenizers import tiny_medgemma_folder
from osler.training.finetune.merge import merge
from osler.training.finetune.output import RUN
from osler.training.finetune.run import finetune
from osler.training.finetune.settings import FinetuneConfig, Method
from osler.training.loop import train
from tests.training.finetune.conftest import Table

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    model = MedGemma(tiny_medgemma_folder(folder))
    randomise(model)
    save_medgemma(model, folder)
    return folder


def settings(method: Method = "lora", **changes: object) -> FinetuneConfig:
    values: dict[str, object] = {
        "method": method,
        "epochs": 8,
        "batch_size": 2,
        "learning_rate": 1e-2 if method != "full" else 3e-3,
        "lora": LoraConfig(rank=8, alpha=16.0),
    }
    return FinetuneConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_model_learns_to_tell_dark_from_bright(
    base: Path, table: Table, tmp_path: Path, method: Method
) -> None:
    data, unseen = table(12), table(8, name="unseen")
    told: list[tuple[str, int, int]] = []
    done = finetune(
        base,
        data,
        tmp_path / "out",
        settings(method),
        validation=unseen,
        progress=lambda *step: told.append(step),
    )
    assert done.after["validation_loss"] < 0.5 * done.before["validation_loss"]
    assert done.after["validation_accuracy"] == 1
    assert (done.examples, done.validation_examples, done.steps) == (12, 8, 48)
    assert told[0] == ("reading", 1, 20)
    assert told[-1] == ("reading", 20, 20)
    assert json.loads((tmp_path / "out" / RECORD).read_text())["after"] == done.after
    run = json.loads((tmp_path / "out" / RUN / "run.json").read_text())
    assert run["data_sha256"] == done.data_sha256
    assert not (tmp_path / "out" / RUN / "checkpoints").exists()
    answering = tmp_path / "out"
    if method != "full":
        answering = tmp_path / "merged"
        merge(tmp_path / "out", answering)
    question = "Which of these does the image show: bright, dark?"
    answer = osler.load(answering).ask(question, [unseen / "0.png"], max_new_tokens=8)
    assert answer.text == "dark"
    assert len(load_medgemma(answering).state_dict()) == len(load_medgemma(base).state_dict())


def test_what_was_learnt_is_what_peft_reads(base: Path, table: Table, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finetune(base, table(4), out, settings(epochs=1))
    ours = load_medgemma(base)
    load_adapter(ours, out)
    transformers.utils.logging.disable_progress_bar()
    plain = transformers.AutoModelForImageTextToText.from_pretrained(base)
    reference = peft.PeftModel.from_pretrained(plain, out).eval()
    ids = torch.tensor([[2, 150, 151, 152, 153]])
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(ids), reference(input_ids=ids).logits, atol=1e-4, rtol=0
        )
    assert any(p.abs().max() > 0 for name, p in ours.named_parameters() if "lora_B" in name)


def test_only_the_named_layers_get_adapters(base: Path, table: Table, tmp_path: Path) -> None:
    config = settings(epochs=1, target_modules=("q_proj", "fc1"))
    finetune(base, table(4), tmp_path / "out", config)
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written["target_modules"] == ["fc1", "q_proj"]
    assert written["base_model_name_or_path"] == str(base)
    with pytest.raises(PromptError, match="'c_attn' is not in the model, which has down_proj"):
        finetune(base, table(4, name="more"), tmp_path / "b", settings(target_modules=("c_attn",)))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_text_alone_leaves_the_vision_tower_as_it_was(
    base: Path, tmp_path: Path, method: Method
) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("question,answer\nWhy?,So.\nWhat?,That.\n")
    finetune(base, data, tmp_path / "out", settings(method, epochs=1))
    if method == "lora":
        ours = load_medgemma(base)
        load_adapter(ours, tmp_path / "out")
        assert not [name for name, _ in ours.vision_tower.named_parameters() if "lora" in name]
        with pytest.raises(PromptError, match="read images only, and the data have none"):
            finetune(base, data, tmp_path / "b", settings(target_modules=("fc1",)))
        return
    before, after = load_medgemma(base).state_dict(), load_medgemma(tmp_path / "out").state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"language_model"}


def test_an_interrupted_run_goes_on_to_the_same_weights(
    base: Path, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = table(8), settings(epochs=2, checkpoint_every=2)
    whole = finetune(base, data, tmp_path / "whole", config, validation=data)

    def interrupted(*args: object, **options: object) -> None:
        train(*args, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr("osler.training.finetune.run.train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(base, data, tmp_path / "again", config, validation=data)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="not empty"):
        finetune(base, data, tmp_path / "again", config)
    again = finetune(base, data, tmp_path / "again", config, validation=data, resume=True)
    assert again.before == whole.before
    assert again.after == whole.after
    name = "adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(CheckpointError, match="no interrupted run"):
        finetune(base, data, tmp_path / "again", config, resume=True)


def test_what_is_refused_before_any_work(
    base: Path, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = table(4)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "model.osler").touch()
    for name, reason in (
        ("medsiglip-nano", "model_type is 'siglip'"),
        (tmp_path / "packed", "packed weights do not train; give the checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            finetune(name, data, tmp_path / "out", settings())
    with pytest.raises(CheckpointError, match="not empty"):
        finetune(base, data, data, settings())
    with pytest.raises(UnreadableFileError, match=r"labels.csv, line 2: \d+ tokens, more than"):
        finetune(base, data, tmp_path / "out", settings(most_tokens=10))
    other = tmp_path / "other.csv"
    other.write_text(f"image,label\n{data / '0.png'},grey\n{data / '1.png'},dark\n")
    with pytest.raises(UnreadableFileError, match="line 2: a label that the training data"):
        finetune(base, data, tmp_path / "out", settings(), validation=other)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 1000}))
    with pytest.raises(CheckpointError, match=r"out: needs 0.\d GB, and its disk has 0.0"):
        finetune(base, data, tmp_path / "out", settings())
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_is_said_in_one_line(
    base: Path, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)  # what torch's writer stores each tensor by
    with pytest.raises(CheckpointError, match="run: the training's state cannot be written") as e:
        finetune(base, table(4), tmp_path / "out", settings(epochs=1))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "magic"}, "must be one of lora, qlora, full"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"parallel": "fsdp2"}, "fsdp2 goes with the method full"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        settings(**changes)  # type: ignore[arg-type]


def test_the_learning_rate_goes_with_the_width() -> None:
    assert FinetuneConfig(method="qlora").rate(2560) == pytest.approx(2e-4)
    assert FinetuneConfig(method="lora").rate(5120) == pytest.approx(1e-4)
    assert FinetuneConfig(method="full").rate(2560) == pytest.approx(1e-5)
    assert FinetuneConfig(learning_rate=3.0).rate(5120) == 3.0
