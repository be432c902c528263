"""`osler quantize` and the packed folders that it makes: loaded, described, refused."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from torch import Tensor

import osler
from osler.cli import main
from osler.errors import CheckpointError, CorruptFileError, PromptError
from osler.models.checkpoint import save_medgemma
from osler.models.config import MedGemmaConfig
from osler.models.medgemma import MedGemma
from osler.native.library import library
from osler.native.packed_file import PACKED_FILE
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.assistant import Assistant
from osler.tasks.locate import shipped_weights
from osler.tasks.packed_folder import check_out
from osler.tasks.quantize import quantize
from osler.testing.gguf import write_text_gguf, write_vision_gguf
from osler.testing.models import randomise, tiny_medgemma
from osler.testing.tokenizers import TEXT

QUESTION = "Which body part is shown?"
IDS = torch.tensor([[2, 500, 7, 900, 31, 8, 77]])

pytestmark = pytest.mark.skipif(library() is None, reason="no native library")


@pytest.fixture(scope="module")
def int4_folder(medgemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "int4"
    text = folder.with_name("text.txt")
    text.write_text("The lungs are clear.\n---\nNo effusion.")
    quantize(medgemma_folder, folder, to="int4", calibration=text)
    return folder


@pytest.fixture(scope="module")
def encoder_folder(medsiglip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "encoder"
    quantize(medsiglip_folder, folder, to="int8")
    return folder


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("to", "allowed"), [("bf16", 0.02), ("int8", 0.05)])
def test_a_packed_model_scores_as_its_checkpoint(
    medgemma_folder: Path, tmp_path: Path, to: str, allowed: float
) -> None:
    packed = quantize(medgemma_folder, tmp_path / "packed", to=to)
    assert (packed.family, packed.decoder, packed.encoder) == ("medgemma", to, to)
    wanted = osler.load(medgemma_folder).logits(IDS)
    model = osler.load(tmp_path / "packed")
    assert relative_error(model.logits(IDS), wanted) < allowed


def test_images_and_padding_score_as_in_torch(medgemma_folder: Path, tmp_path: Path) -> None:
    quantize(medgemma_folder, tmp_path / "packed", to="bf16")
    plain, packed = osler.load(medgemma_folder), osler.load(tmp_path / "packed")
    image = [plain.config.image_token_id] * plain.config.mm_tokens_per_image
    ids = [[2, 5, *image, 9, 4], [0, 0, 2, *image, 8]]
    mask = [[1] * len(ids[0]), [0, 0] + [1] * (len(ids[1]) - 2)]
    pixels = torch.rand(2, 3, 224, 224) * 2 - 1
    wanted = plain.logits(ids, pixels, mask)
    found = packed.logits(ids, pixels, mask)
    real = torch.tensor(mask).bool()
    assert relative_error(found[real], wanted[real]) < 0.03
    assert found[~real].eq(0).all()
    with pytest.raises(ValueError, match="49 image tokens for 98 image embeddings"):
        packed.logits([ids[0]], pixels)


def test_a_packed_model_answers_and_says_who_it_is(
    medgemma_folder: Path, int4_folder: Path, picture: Path
) -> None:
    model = osler.load(int4_folder)
    assert isinstance(model, Assistant)
    answer = model.ask(QUESTION, [picture], max_new_tokens=5)
    assert len(answer.tokens) == 5
    assert answer.notice == osler.load(medgemma_folder).notice
    assert osler.load(int4_folder, version="1").config.medgemma_version == "1"


def test_a_packed_encoder_embeds_as_its_checkpoint(
    medsiglip_folder: Path, encoder_folder: Path, picture: Path
) -> None:
    plain, packed = osler.load_encoder(medsiglip_folder), osler.load_encoder(encoder_folder)
    texts = ["normal", "pneumonia"]
    for wanted, found in (
        (plain.embed_images([picture]), packed.embed_images([picture])),
        (plain.embed_texts(texts), packed.embed_texts(texts)),
    ):
        assert (wanted * found).sum(axis=1).min() > 0.999
    result = packed.classify([picture], texts)[0]
    np.testing.assert_allclose(
        list(result.probabilities.values()),
        list(plain.classify([picture], texts)[0].probabilities.values()),
        atol=0.05,
    )


def test_a_packed_folder_needs_nothing_of_its_checkpoint(int4_folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(int4_folder, moved)
    assert {path.name for path in moved.iterdir()} >= {PACKED_FILE, "config.json", "tokenizer.json"}
    assert not list(moved.glob("*.safetensors"))
    assert osler.load(moved).ask(QUESTION, max_new_tokens=2).tokens


def test_the_command_prints_what_it_wrote(
    medgemma_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "packed"
    arguments = ["quantize", str(medgemma_folder), "--to", "int8", "--out", str(out)]
    assert main([*arguments, "--encoder", "bf16", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["decoder"], said["encoder"], said["rounded"]) == ("int8", "bf16", [])
    assert said["file_bytes"] == (out / PACKED_FILE).stat().st_size
    # Once more, over the earlier one.
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "decoder int8, encoder int8" in captured.err
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_info_shows_formats_and_sizes(
    int4_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(int4_folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["formats"] == {"decoder": "int4", "encoder": "int8"}
    assert said["weights_bytes"] == {"packed": (int4_folder / PACKED_FILE).stat().st_size}
    assert main(["info", str(int4_folder), "--verify"]) == 0
    captured = capsys.readouterr()
    assert "decoder int4, encoder int8" in captured.out
    assert "all checksums are right" in captured.err


def test_damage_is_found_by_info_and_by_loading(
    int4_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(int4_folder, folder)
    data = bytearray((folder / PACKED_FILE).read_bytes())
    data[5000] ^= 4
    (folder / PACKED_FILE).write_bytes(data)
    with pytest.raises(CorruptFileError, match="is damaged"):
        osler.load(folder)
    assert main(["info", str(folder), "--verify"]) == 1
    assert "is damaged" in capsys.readouterr().err


def test_verify_needs_a_packed_folder(
    medgemma_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(medgemma_folder), "--verify"]) == 1
    assert "only packed weights have checksums" in capsys.readouterr().err


def test_what_packed_models_refuse(int4_folder: Path, encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="run on the CPU"):
        osler.load(int4_folder, device="cuda")
    with pytest.raises(PromptError, match="keep the formats"):
        osler.load(int4_folder, dtype="bfloat16")
    with pytest.raises(CheckpointError, match="packed weights cannot be saved"):
        osler.load(int4_folder).save(tmp_path)
    with pytest.raises(CheckpointError, match="packed weights cannot be saved"):
        osler.load_encoder(encoder_folder).save(tmp_path)
    with pytest.raises(CheckpointError, match="packed already"):
        quantize(int4_folder, tmp_path / "out", to="int8")
    with pytest.raises(CheckpointError, match="holds a medsiglip, not a medgemma"):
        osler.load(encoder_folder)


def test_without_the_native_library(
    int4_folder: Path, medgemma_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osler.tasks.packed_folder.library", lambda: None)
    with pytest.raises(CheckpointError, match="install Osler where there is a C compiler"):
        osler.load(int4_folder)
    with pytest.raises(CheckpointError, match="C compiler"):
        quantize(medgemma_folder, tmp_path / "out", to="int8")
    assert not (tmp_path / "out").exists()


def test_a_file_that_does_not_fit_its_configuration(int4_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(int4_folder, folder)
    values = json.loads((folder / "config.json").read_text())
    values["text_config"]["intermediate_size"] = 112
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"does not fit config\.json"):
        osler.load(folder).logits(IDS)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--out", "x"], "--to is needed"),
        (["--to", "int2", "--out", "x"], "invalid choice"),
        (["--to", "int4"], "--out"),
        (["--to", "int4", "--out", "x", "--mmproj", "y"], "go with a GGUF file"),
    ],
)
def test_wrong_usage(options: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["quantize", "nano", *options])
    assert reason in capsys.readouterr().err


def test_folders_that_are_not_written_over(medgemma_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"not empty \(it holds note.txt\)"):
        quantize(medgemma_folder, tmp_path, to="int8")
    with pytest.raises(CheckpointError, match="a file, not a folder"):
        quantize(medgemma_folder, tmp_path / "note.txt", to="int8")
    with pytest.raises(CheckpointError, match="its disk has"):
        check_out(tmp_path / "new", 2**60)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_formats_that_do_not_go_together(
    medgemma_folder: Path, medsiglip_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(PromptError, match="a MedSigLIP is packed to int8 or bf16"):
        quantize(medsiglip_folder, tmp_path / "out", to="int4")
    with pytest.raises(PromptError, match="'int4' is not one of"):
        quantize(medgemma_folder, tmp_path / "out", to="int4", encoder="int4")


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    model = MedGemma(tiny_medgemma())
    randomise(model)
    with torch.no_grad():
        model.get_parameter("language_model.layers.1.mlp.up_proj.weight")[3, 4] = torch.nan
    save_medgemma(model, tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"layers.1.mlp.gate_up_proj.*not numbers"):
        quantize(tmp_path / "model", tmp_path / "out", to="int8")
    assert not (tmp_path / "out" / "config.json").exists()


def gguf_model() -> MedGemma:
    tiny = tiny_medgemma()
    text = replace(tiny.text_config, num_hidden_layers=2, layer_types=(), vocab_size=400)
    config: MedGemmaConfig = replace(
        tiny, text_config=text, image_token_id=399, boi_token_id=397, eoi_token_id=398
    )
    model = MedGemma(config)
    randomise(model)
    return model.bfloat16().float().eval()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> sentencepiece.SentencePieceProcessor:
    prefix = tmp_path_factory.mktemp("pieces") / "tokenizer"
    marks = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in TEXT for line in text.splitlines()]),
        model_prefix=str(prefix),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        user_defined_symbols=[*marks, "<image_soft_token>"],
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "BF16"])
def test_gguf_files_keep_their_values(
    tmp_path: Path,
    kind: str,
    pieces: sentencepiece.SentencePieceProcessor,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = gguf_model()
    text, vision, out = tmp_path / "text.gguf", tmp_path / "vision.gguf", tmp_path / "packed"
    held = write_text_gguf(model, text, kind, pieces=pieces)
    held |= write_vision_gguf(model, vision, kind)
    arguments = ["quantize", str(text), "--mmproj", str(vision), "--out", str(out), "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rounded"] == []
    assert said["decoder"] == kind.lower()
    packed = osler.load(out)
    image = [packed.config.image_token_id] * 4
    ids = torch.tensor([[2, 30, *image, 77, 200]])
    pixels = torch.rand(1, 3, 56, 56) * 2 - 1
    for name, values in model.state_dict().items():
        norm = held[name].ndim == 1 and ("language_model" in name or "soft_emb" in name)
        values.copy_(torch.from_numpy(held[name] - norm))
    model.config = packed.config
    with torch.inference_mode():
        wanted = model(ids, pixels_NCSS=pixels)
    # What is left is the rounding of activations, to bf16 or to 8 bits.
    assert relative_error(packed.logits(ids, pixels), wanted) < 0.03
    answer = packed.ask("Describe this image.", [np.zeros((9, 9, 3), np.uint8)], max_new_tokens=3)
    assert answer.tokens


def test_the_tokenizer_of_a_gguf_file(
    tmp_path: Path, pieces: sentencepiece.SentencePieceProcessor
) -> None:
    write_text_gguf(gguf_model(), tmp_path / "text.gguf", "F32", pieces=pieces)
    assert main(["quantize", str(tmp_path / "text.gguf"), "--out", str(tmp_path / "out")]) == 0
    tokenizer = Tokenizer.from_folder(tmp_path / "out")
    for text in (*TEXT, "Ünknown ∆ letters  and  blanks"):
        assert tokenizer.encode(text) == pieces.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<start_of_turn>user") == pieces.encode("<start_of_turn>user")


def test_a_gguf_file_without_a_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "text.gguf", tmp_path / "out"
    write_text_gguf(gguf_model(), path, "Q8_0")
    assert main(["quantize", str(path), "--out", str(out)]) == 1
    assert "--tokenizer" in capsys.readouterr().err
    nano = str(shipped_weights() / "medgemma-nano")
    assert main(["quantize", str(path), "--out", str(out), "--tokenizer", nano]) == 0
    assert (out / "tokenizer.json").read_bytes() == Path(nano, "tokenizer.json").read_bytes()
    assert main(["quantize", str(path), "--out", str(out), "--tokenizer", str(tmp_path)]) == 1
    with pytest.raises(SystemExit):
        main(["quantize", str(path), "--to", "int4", "--out", str(out)])


def test_images_and_texts_at_once(encoder_folder: Path, picture: Path) -> None:
    packed = osler.load_encoder(encoder_folder)
    image, text = packed.embed_images([picture]), packed.embed_texts(["normal"])
    with ThreadPoolExecutor(2) as pool:
        images = pool.map(packed.embed_images, [[picture]] * 20)
        texts = pool.map(packed.embed_texts, [["normal"]] * 20)
        assert all(np.array_equal(found, image) for found in images)
        assert all(np.array_equal(found, text) for found in texts)
