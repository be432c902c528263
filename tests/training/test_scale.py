"""The tables of docs/scale.md are those that its arithmetic gives."""

from pathlib import Path

import pytest

from bench.scale import decoder, least_tokens, memory_gb, tables
from osler.models.config import medgemma_4b

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


@pytest.mark.slow
def test_the_page_says_what_the_arithmetic_gives() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "|" in line]
    assert [line for line in tables().splitlines() if line and line not in lines] == []


def test_sharding_divides_the_states_and_nothing_else() -> None:
    small = decoder("4B", medgemma_4b())
    assert small.decoder == pytest.approx(3.88e9, rel=0.01)
    alone, shared = (memory_gb(small, gpus, 1, 4096) for gpus in (1, 8))
    assert shared["states"] == pytest.approx(alone["states"] / 8)
    assert shared["total"] - shared["states"] == pytest.approx(alone["total"] - alone["states"])
    # A longer sequence has each token meet more keys, so that fewer tokens hide the network.
    assert small.forward_flops(8192) > small.forward_flops(4096) > 2 * small.decoder
    assert 1e3 < least_tokens(small) < 1e5
