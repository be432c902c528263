"""One small tokenizer for all tests of this room, and the runners that the engine is tested on."""

from collections.abc import Callable

import pytest

from osler.inference.native_runner import NativeRunner
from osler.inference.runner import Runner
from osler.inference.torch_runner import TorchRunner
from osler.models.config import MedGemmaConfig
from osler.models.medgemma import MedGemma
from osler.native.decoder import Decoder
from osler.native.library import library
from osler.native.packing import Packer
from osler.preprocess.tokenizer import Tokenizer
from osler.testing.dummy import dummy_tokenizer
from osler.testing.models import randomise
from osler.testing.quantised import pack_decoder

MakeRunner = Callable[[MedGemmaConfig], Runner]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return dummy_tokenizer()


def torch_runner(config: MedGemmaConfig) -> TorchRunner:
    """Random weights, exact in bf16."""
    model = MedGemma(config)
    randomise(model)
    return TorchRunner(model.bfloat16().float().eval())


def native_runner(config: MedGemmaConfig) -> NativeRunner:
    """The same weights in the native decoder."""
    made = torch_runner(config)
    loaded = library()
    assert loaded is not None, "these tests need the native library; is there a compiler?"
    pool = loaded.pool(1)
    packer = Packer(loaded, pool)
    state = made.model.state_dict()
    weights = pack_decoder(
        config.text_config,
        lambda name: state[name].float().numpy(),
        lambda name, values_RC: packer.pack(values_RC, "bf16"),
    )
    return NativeRunner(config, Decoder(config, weights, loaded, pool), made.embed_images)


@pytest.fixture(params=[torch_runner, native_runner], ids=["torch", "native"], scope="session")
def make_runner(request: pytest.FixtureRequest) -> MakeRunner:
    """Makes a runner of each kind."""
    made: MakeRunner = request.param
    return made
