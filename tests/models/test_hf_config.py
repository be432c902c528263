"""`config.json` against the configuration classes of transformers, in old and new spellings."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import transformers

from osler.errors import CheckpointError, CorruptFileError
from osler.models.config import (
    FULL,
    SLIDING,
    MedGemmaConfig,
    SiglipTextConfig,
    TextConfig,
    VisionConfig,
    medgemma_4b,
    medgemma_27b,
    medgemma_27b_text,
    medgemma_nano,
    medsiglip_448,
    medsiglip_nano,
)
from osler.models.hf_config import (
    medgemma_json,
    medsiglip_json,
    read_medgemma_config,
    read_medsiglip_config,
)
from osler.testing.models import tiny_medgemma, tiny_medgemma_text, tiny_medsiglip

Json = dict[str, Any]

# What the released files say; everything else is left to the defaults of transformers.
VISION_896: Json = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}
RELEASED_4B: Json = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "vision_config": VISION_896,
}
TEXT_27B: Json = {
    "head_dim": 128,
    "hidden_size": 5376,
    "intermediate_size": 21504,
    "model_type": "gemma3_text",
    "num_attention_heads": 32,
    "num_hidden_layers": 62,
    "num_key_value_heads": 16,
    "query_pre_attn_scalar": 168,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}
RELEASED_27B: Json = RELEASED_4B | {"text_config": TEXT_27B}
RELEASED_27B_TEXT: Json = TEXT_27B | {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_theta": 1000000.0,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 262144,
}
RELEASED_MEDSIGLIP: Json = {
    "architectures": ["SiglipModel"],
    "model_type": "siglip",
    "text_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "model_type": "siglip_text_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
    },
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 448,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}


def written(folder: Path, content: Json, generation: Json | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def saved_by_transformers(folder: Path, config: Any) -> Path:
    config.save_pretrained(folder)
    return folder


def text_of_transformers(config: Any) -> TextConfig:
    """The sizes as transformers understands them."""
    rope = config.rope_parameters
    return TextConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        query_pre_attn_scalar=config.query_pre_attn_scalar,
        vocab_size=config.vocab_size,
        sliding_window=config.sliding_window,
        layer_types=tuple(config.layer_types),
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=rope[FULL]["rope_theta"],
        rope_local_base_freq=rope[SLIDING]["rope_theta"],
        rope_scaling_factor=rope[FULL].get("factor", 1.0),
    )


def shared(config: Any, ours: VisionConfig | SiglipTextConfig) -> Json:
    return {name: getattr(config, name) for name in asdict(ours)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (RELEASED_4B, medgemma_4b()),
        (RELEASED_27B, medgemma_27b()),
        (
            RELEASED_27B_TEXT,
            replace(
                medgemma_27b_text(),
                text_config=replace(medgemma_27b_text().text_config, vocab_size=262_144),
            ),
        ),
    ],
    ids=["4b", "27b", "27b text"],
)
def test_released_files_give_the_named_configurations(
    tmp_path: Path, content: Json, expected: MedGemmaConfig
) -> None:
    assert read_medgemma_config(written(tmp_path / "released", content)) == expected


def test_released_medsiglip_gives_the_named_configuration(tmp_path: Path) -> None:
    assert read_medsiglip_config(written(tmp_path, RELEASED_MEDSIGLIP)) == medsiglip_448()


MULTIMODAL: dict[str, Json] = {
    "all left out": {"vision_config": {"image_size": 896, "patch_size": 14}},
    "4b": RELEASED_4B,
    "27b": RELEASED_27B,
    "older fields": {
        "text_config": {
            "num_hidden_layers": 9,
            "sliding_window_pattern": 4,
            "rope_theta": 500000.0,
            "rope_local_base_freq": 5000.0,
            "rope_scaling": {"factor": 4.0, "rope_type": "linear"},
            "query_pre_attn_scalar": 100,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
        },
        "vision_config": VISION_896 | {"layer_norm_eps": 1e-5},
    },
    "newer fields": {
        "text_config": {
            "num_hidden_layers": 3,
            "layer_types": [FULL, SLIDING, FULL],
            "rope_parameters": {
                FULL: {"rope_type": "linear", "factor": 16.0, "rope_theta": 700000.0},
                SLIDING: {"rope_type": "default", "rope_theta": 7000.0},
            },
        },
        "vision_config": VISION_896,
    },
}


@pytest.mark.parametrize("content", MULTIMODAL.values(), ids=MULTIMODAL.keys())
def test_multimodal_sizes_are_those_of_transformers(tmp_path: Path, content: Json) -> None:
    theirs = transformers.Gemma3Config(**json.loads(json.dumps(content)))
    as_given = written(tmp_path / "given", {"model_type": "gemma3"} | content)
    as_saved = saved_by_transformers(tmp_path / "saved", theirs)
    for folder in (as_given, as_saved):
        ours = read_medgemma_config(folder)
        assert ours.text_config == text_of_transformers(theirs.text_config)
        assert ours.vision_config is not None
        assert asdict(ours.vision_config) == shared(theirs.vision_config, ours.vision_config)
        assert ours.mm_tokens_per_image == theirs.mm_tokens_per_image
        assert ours.image_token_id == theirs.image_token_index
        assert ours.boi_token_id == theirs.boi_token_index
        assert ours.eoi_token_id == theirs.eoi_token_index


@pytest.mark.parametrize(
    "content", [{}, RELEASED_27B_TEXT, MULTIMODAL["newer fields"]["text_config"]]
)
def test_text_sizes_are_those_of_transformers(tmp_path: Path, content: Json) -> None:
    theirs = transformers.Gemma3TextConfig(**json.loads(json.dumps(content)))
    as_given = written(tmp_path / "given", {"model_type": "gemma3_text"} | content)
    as_saved = saved_by_transformers(tmp_path / "saved", theirs)
    for folder in (as_given, as_saved):
        ours = read_medgemma_config(folder)
        assert ours.text_config == text_of_transformers(theirs)
        assert ours.vision_config is None


@pytest.mark.parametrize(
    "content",
    [{}, {"text_config": {"hidden_size": 96}, "vision_config": {"hidden_size": 96}}],
    ids=str,
)
def test_siglip_sizes_are_those_of_transformers(tmp_path: Path, content: Json) -> None:
    theirs = transformers.SiglipConfig(**json.loads(json.dumps(content)))
    as_given = written(tmp_path / "given", {"model_type": "siglip"} | content)
    as_saved = saved_by_transformers(tmp_path / "saved", theirs)
    for folder in (as_given, as_saved):
        ours = read_medsiglip_config(folder)
        assert asdict(ours.text_config) == shared(theirs.text_config, ours.text_config)
        assert asdict(ours.vision_config) == shared(theirs.vision_config, ours.vision_config)


@pytest.mark.parametrize(
    "config",
    [medgemma_4b(), medgemma_27b(), medgemma_27b_text(), medgemma_nano(), tiny_medgemma()],
    ids=["4b", "27b", "27b text", "nano", "tiny"],
)
def test_what_we_write_both_read_as_it_was(tmp_path: Path, config: MedGemmaConfig) -> None:
    content = medgemma_json(config, "bfloat16")
    written(tmp_path, content["config.json"], content["generation_config.json"])
    assert read_medgemma_config(tmp_path) == config
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert text_of_transformers(theirs.get_text_config()) == config.text_config
    assert str(theirs.dtype) == "torch.bfloat16"


@pytest.mark.parametrize("config", [medsiglip_448(), medsiglip_nano(), tiny_medsiglip()])
def test_what_we_write_of_medsiglip_both_read_as_it_was(tmp_path: Path, config: Any) -> None:
    written(tmp_path, medsiglip_json(config, "float32")["config.json"])
    assert read_medsiglip_config(tmp_path) == config
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert shared(theirs.text_config, config.text_config) == asdict(config.text_config)


def test_readers_before_transformers_5_find_their_fields() -> None:
    text = medgemma_json(medgemma_4b(), "bfloat16")["config.json"]["text_config"]
    assert text["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    assert text["rope_theta"] == 1_000_000.0
    assert text["rope_local_base_freq"] == 10_000.0
    assert type(text["query_pre_attn_scalar"]) is int


@pytest.mark.parametrize(
    ("top", "text", "generation", "expected"),
    [
        ({"eos_token_id": [1, 106]}, {"eos_token_id": 5}, {"eos_token_id": [7, 8]}, (7, 8)),
        ({"eos_token_id": [1, 106]}, {"eos_token_id": 5}, None, (1, 106)),
        ({"eos_token_id": 9}, {}, {"top_k": 64}, (9,)),
        ({}, {"eos_token_id": 5}, None, (5,)),
        ({}, {}, None, (1,)),
    ],
)
def test_end_tokens(
    tmp_path: Path, top: Json, text: Json, generation: Json | None, expected: tuple[int, ...]
) -> None:
    content = {"model_type": "gemma3", "text_config": text, "vision_config": VISION_896} | top
    assert read_medgemma_config(written(tmp_path, content, generation)).eos_token_ids == expected


@pytest.mark.parametrize(
    ("folder", "fields", "version"),
    [
        ("medgemma-4b-it", {}, "1"),
        ("medgemma-1.5-4b-it", {}, "1.5"),
        ("models--google--medgemma-1.5-4b-it/snapshots/e6f2", {}, "1.5"),
        ("my-1.5", {}, "1.5"),
        ("1.5/medgemma-4b-it", {}, "1"),
        ("medgemma-1.5-4b-it", {"medgemma_version": "1"}, "1"),
        ("plain", {"medgemma_version": "1.5"}, "1.5"),
        ("plain", {"_name_or_path": "google/medgemma-1.5-4b-it"}, "1.5"),
    ],
)
def test_version(tmp_path: Path, folder: str, fields: Json, version: str) -> None:
    # The name of the test's own folder holds "1.5" for some, but not as the model's.
    written(tmp_path / folder, RELEASED_4B | fields)
    assert read_medgemma_config(tmp_path / folder).medgemma_version == version


def with_text(**fields: Any) -> Json:
    return RELEASED_4B | {"text_config": RELEASED_4B["text_config"] | fields}


def with_vision(**fields: Any) -> Json:
    return RELEASED_4B | {"vision_config": VISION_896 | fields}


REFUSED: dict[str, Json] = {
    "model_type": RELEASED_4B | {"model_type": "llama"},
    "model_type is None": {"hidden_size": 64},
    "quantization_config": RELEASED_4B | {"quantization_config": {"quant_method": "bitsandbytes"}},
    "tie_word_embeddings": RELEASED_4B | {"tie_word_embeddings": False},
    "medgemma_version": RELEASED_4B | {"medgemma_version": "2"},
    "text_config: model_type": with_text(model_type="gemma2"),
    "attn_logit_softcapping": with_text(attn_logit_softcapping=50.0),
    "final_logit_softcapping": with_text(final_logit_softcapping=30.0),
    "attention_bias": with_text(attention_bias=True),
    "hidden_activation": with_text(hidden_activation="silu"),
    "use_bidirectional_attention": with_text(use_bidirectional_attention=True),
    "rope_scaling: rope_type": with_text(rope_scaling={"rope_type": "yarn", "factor": 8.0}),
    "rope_scaling: rope_type is 'default'": with_text(
        rope_scaling={"type": "linear", "factor": 8.0}
    ),
    "rope_parameters: full_attention: rope_type": with_text(
        rope_scaling=None, rope_parameters={FULL: {"rope_type": "llama3"}}
    ),
    "rope_parameters: sliding_attention": with_text(
        rope_parameters={SLIDING: {"rope_type": "linear", "factor": 2.0}}
    ),
    "rope_parameters: rope_theta": with_text(rope_parameters={"rope_theta": 1e6}),
    "layer_types": with_text(layer_types=["chunked_attention"] * 34),
    "layer_types has 1": with_text(layer_types=[FULL]),
    "layer_types is not": with_text(layer_types=FULL),
    "hidden_size is '2560'": with_text(hidden_size="2560"),
    "num_hidden_layers is 0": with_text(num_hidden_layers=0),
    "head_dim is True": with_text(head_dim=True),
    "head_dim 255": with_text(head_dim=255),
    "num_key_value_heads": with_text(num_key_value_heads=3),
    "rms_norm_eps": with_text(rms_norm_eps=-1e-6),
    "rope_theta": with_text(rope_theta=float("nan")),
    "text_config is not": RELEASED_4B | {"text_config": "gemma3_text"},
    "hidden_act": with_vision(hidden_act="gelu"),
    "vision_config: model_type": with_vision(model_type="siglip2_vision_model"),
    "image_size": with_vision(image_size=[896, 896]),
    "patch_size": with_vision(patch_size=15),
    "256 tokens": with_vision(image_size=14 * 63),
    "image_token_index": RELEASED_4B | {"image_token_index": -1},
    "eos_token_id": RELEASED_4B | {"eos_token_id": ["</s>"]},
}


@pytest.mark.parametrize(("said", "content"), REFUSED.items(), ids=REFUSED.keys())
def test_what_osler_does_not_compute_is_refused(tmp_path: Path, said: str, content: Json) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_medgemma_config(written(tmp_path, content))
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "config.json"))
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("said", "content"),
    [
        ("model_type", RELEASED_4B),
        ("hidden_act", {"model_type": "siglip", "text_config": {"hidden_act": "gelu"}}),
        ("projection_size", {"model_type": "siglip", "text_config": {"projection_size": 5}}),
    ],
)
def test_what_medsiglip_does_not_compute_is_refused(
    tmp_path: Path, said: str, content: Json
) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_medsiglip_config(written(tmp_path, content))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
    ],
)
def test_broken_json(tmp_path: Path, raw: bytes, said: str) -> None:
    (tmp_path / "config.json").write_bytes(raw)
    with pytest.raises(CorruptFileError, match=said):
        read_medgemma_config(tmp_path)


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match=r"config\.json: No such file"):
        read_medgemma_config(tmp_path)


def test_text_only_config_is_written_flat() -> None:
    content = medgemma_json(tiny_medgemma_text(), "float32")["config.json"]
    assert content["model_type"] == "gemma3_text"
    assert "vision_config" not in content
