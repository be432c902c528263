"""What loading costs: memory of about the files' size, and no more imports than torch itself."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from osler.models.checkpoint import save_medgemma, save_medsiglip
from osler.models.config import MedGemmaConfig, TextConfig
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.testing.models import tiny_medsiglip

LOAD_AND_RUN = """
import json, sys
from pathlib import Path
import torch
from osler.models.checkpoint import load_medgemma, load_medsiglip

def memory(field):
    status = Path("/proc/self/status").read_text()
    return int(status.split(field + ":")[1].split()[0]) * 1024

before = memory("VmRSS")
load_medsiglip(sys.argv[2])
model = load_medgemma(sys.argv[1])
loaded = memory("VmRSS")
for parameter in model.parameters():
    parameter.sum()  # every page of the files is looked at
print(json.dumps({
    "loaded": loaded - before,
    "peak": memory("VmHWM") - before,
    "imported": [name for name in ("sympy", "torch._dynamo") if name in sys.modules],
}))
"""


def test_weights_are_in_memory_once(tmp_path: Path) -> None:
    text = TextConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=128,
        query_pre_attn_scalar=128,
        vocab_size=60_000,
    )
    model = MedGemma(MedGemmaConfig(text_config=text)).to(torch.bfloat16)
    save_medgemma(model, tmp_path / "gemma", max_shard_bytes=50_000_000)
    save_medsiglip(MedSiglip(tiny_medsiglip()), tmp_path / "siglip")
    file_bytes = sum(path.stat().st_size for path in (tmp_path / "gemma").glob("*.safetensors"))
    assert file_bytes > 150_000_000
    done = subprocess.run(
        [sys.executable, "-c", LOAD_AND_RUN, str(tmp_path / "gemma"), str(tmp_path / "siglip")],
        capture_output=True,
        text=True,
        check=True,
    )
    cost = json.loads(done.stdout)
    assert cost["loaded"] <= 0.25 * file_bytes  # mapped: nothing is read before it is used
    assert cost["peak"] <= 1.15 * file_bytes
    assert cost["imported"] == []
