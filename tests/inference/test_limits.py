"""How memory is shared out, and what the machine is asked for."""

from dataclasses import replace
from pathlib import Path

import pytest

from osler.errors import MemoryLimitError, PromptError
from osler.inference import memory
from osler.inference.limits import Limits, page_counts
from osler.models.config import FULL, SLIDING, medgemma_4b
from osler.models.pages import PAGE_TOKENS, page_numbers
from osler.tasks.info import cache_numbers

CONFIG = medgemma_4b()
PAGE_BYTES = (
    2 * page_numbers(CONFIG.text_config, FULL),
    2 * page_numbers(CONFIG.text_config, SLIDING),
)
GIB = 1 << 30


def used(pages: tuple[int, int]) -> int:
    return pages[0] * PAGE_BYTES[0] + pages[1] * PAGE_BYTES[1]


@pytest.mark.parametrize("gib", [1, 2, 4, 8, 16, 200])
def test_pages_keep_within_the_budget(gib: int) -> None:
    limits = Limits(cache_bytes=gib * GIB)
    pages = page_counts(CONFIG, PAGE_BYTES, 0, limits)
    assert used(pages) <= gib * GIB
    assert pages[1] * PAGE_TOKENS >= CONFIG.text_config.sliding_window + limits.step_tokens
    assert pages[1] <= pages[0]


def test_six_gib_hold_the_whole_context_of_the_4b() -> None:
    pages = page_counts(CONFIG, PAGE_BYTES, 0, Limits(cache_bytes=6 * GIB))
    assert (pages[0] - 1) * PAGE_TOKENS >= 131_072


def test_a_long_record_comes_before_company() -> None:
    """What `osler info` says of 32 k, and a window and a half to read it with."""
    needed = 2 * cache_numbers(CONFIG.text_config, 32_768)
    pages = page_counts(CONFIG, PAGE_BYTES, 0, Limits(cache_bytes=needed + 100_000_000))
    assert (pages[0] - 1) * PAGE_TOKENS >= 32_768
    more = page_counts(CONFIG, PAGE_BYTES, 0, Limits(cache_bytes=2 * needed))
    assert more[1] > 3 * pages[1]


def test_a_quarter_of_what_is_free_is_taken_and_no_more_than_is_of_use() -> None:
    quarter = page_counts(CONFIG, PAGE_BYTES, 16 * GIB, Limits())
    assert quarter == page_counts(CONFIG, PAGE_BYTES, 0, Limits(cache_bytes=4 * GIB))
    alone = page_counts(CONFIG, PAGE_BYTES, 10_000 * GIB, Limits(max_running=1))
    assert alone[0] == 131_072 // PAGE_TOKENS


@pytest.mark.parametrize("kind", [FULL, SLIDING])
def test_layers_of_one_kind_only(kind: str) -> None:
    text = CONFIG.text_config
    config = replace(CONFIG, text_config=replace(text, layer_types=(kind,) * len(text.layer_types)))
    sizes = page_numbers(config.text_config, FULL), page_numbers(config.text_config, SLIDING)
    pages = page_counts(config, sizes, 0, Limits(cache_bytes=4 * GIB))
    assert pages[0] * sizes[0] + pages[1] * sizes[1] <= 4 * GIB
    assert min(pages) > 16


def test_too_little_for_one_request_says_how_much_is_needed() -> None:
    with pytest.raises(MemoryLimitError, match=r"need 2[0-9][0-9] MB at least, and have 100 MB"):
        page_counts(CONFIG, PAGE_BYTES, 0, Limits(cache_bytes=100_000_000))


@pytest.mark.parametrize(
    "name", ["cache_bytes", "max_running", "max_waiting", "step_tokens", "draft_tokens"]
)
def test_a_limit_out_of_range_is_named(name: str) -> None:
    with pytest.raises(PromptError, match=f"^{name} is -1; it must be at least"):
        Limits(**{name: -1})


def test_free_memory_is_the_machines_or_the_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable: 3000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_memory_bytes() == 3000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 4000\ninactive_file 1000\nactive_file 5\n")
    assert memory.free_memory_bytes() == 3000 * 1024
    (tmp_path / "memory.max").write_text("10000\n")
    assert memory.free_memory_bytes() == 6000
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory.free_memory_bytes() == 0


def test_free_memory_where_there_is_no_common_way_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert memory.free_memory_bytes() > 1 << 20
