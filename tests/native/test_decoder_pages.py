"""The same scores however the positions of sequences are handed to the native decoder."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from osler.native.decoder import ChunkStruct, Decoder
from osler.native.library import library
from osler.testing.models import tiny_medgemma
from tests.native.decoders import (
    ONE_IMAGE,
    TEXT,
    THREE_WINDOWS,
    TWO_IMAGES,
    TWO_PAGES,
    Tape,
    decoder,
    difference,
    drawn,
    model,
    soft_rows,
    whole,
)

FORMATS = [("bf16", "bf16"), ("int8", "bf16"), ("int4", "int8")]


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Bit for bit with the portable kernels.

    Others sum many rows in another order than few, which may turn a rounding the other way; that
    changes some positions and leaves most alone.
    """
    loaded = library()
    assert loaded is not None
    if loaded.kernels == "portable":
        assert torch.equal(ours, theirs)
        return
    off_L = (ours - theirs).abs().amax(dim=1) / theirs.abs().max()
    assert float(off_L.max()) <= 2**-4
    assert float(off_L.median()) <= 1e-5


def test_bit_for_bit_with_the_portable_kernels() -> None:
    if os.environ.get("OSLER_NATIVE_KERNELS") == "portable":
        return  # they are the ones that these tests run on
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "equal", __file__],
        env={**os.environ, "OSLER_NATIVE_KERNELS": "portable"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("format", "kv_format"), FORMATS)
@pytest.mark.parametrize(
    ("row", "chunks"),
    [
        (THREE_WINDOWS, [10] + [1] * 14),  # a prompt with its image, then token by token
        (THREE_WINDOWS, [1] * 6 + [4] + [1] * 14),
        (THREE_WINDOWS, [3, 8, 5, 1, 7]),
        (THREE_WINDOWS, [12, 12]),
        (THREE_WINDOWS, [5, 19]),  # the second chunk is longer than the window
        (TWO_PAGES, [61, 8] + [1] * 56 + [6]),
        (TWO_PAGES, [64 + 1, 61, 5]),  # a chunk ends behind an image that lies across the pages
    ],
    ids=str,
)
def test_chunks_equal_the_whole(row: str, chunks: list[int], format: str, kv_format: str) -> None:
    made, ids = model(tiny_medgemma()), drawn(row)
    native = decoder(made, format, kv_format)
    expected = whole(native, made, ids)
    native.allocate(5, 5)
    tape = Tape(made, ids, [3, 0, 4])
    parts = [torch.from_numpy(native.forward([tape.next(count)])) for count in chunks]
    assert_same(torch.cat(parts), expected)


@pytest.mark.parametrize(("format", "kv_format"), FORMATS)
def test_a_ragged_batch_equals_each_alone(format: str, kv_format: str) -> None:
    """Prompts, a prompt's second part and single tokens in one call."""
    made = model(tiny_medgemma())
    native = decoder(made, format, kv_format)
    rows = [ONE_IMAGE, THREE_WINDOWS, TWO_PAGES, TEXT, TWO_IMAGES]
    alone = [whole(native, made, drawn(row)) for row in rows]
    native.allocate(8, 8)
    pages = [[6], [2], [7, 0, 4], [1], [3]]
    tapes = [Tape(made, drawn(row), own) for row, own in zip(rows, pages, strict=True)]
    first = [0, 12, 70, len(TEXT) - 1, 14]
    native.forward([tape.next(n, 0) for tape, n in zip(tapes, first, strict=True) if n])
    chunks = [tape.next(len(row) - tape.done) for tape, row in zip(tapes, rows, strict=True)]
    expected = torch.cat([scores[n:] for scores, n in zip(alone, first, strict=True)])
    assert_same(torch.from_numpy(native.forward(chunks)), expected)


def test_only_the_wanted_scores_come_back() -> None:
    made = model(tiny_medgemma())
    native = decoder(made)
    rows = [THREE_WINDOWS, TEXT, ONE_IMAGE]
    alone = [whole(native, made, drawn(row)) for row in rows]
    native.allocate(3, 3)
    tapes = [Tape(made, drawn(row), [page]) for page, row in enumerate(rows)]
    chunks = [tapes[0].next(24, 2), tapes[1].next(7, 0), tapes[2].next(10, 1)]
    scores = torch.from_numpy(native.forward(chunks))
    assert scores.shape == (3, 128)
    assert_same(scores[:2], alone[0][-2:])
    assert_same(scores[2:], alone[2][-1:])
    assert native.forward([Tape(made, drawn(TEXT), [1]).next(7, 0)]).shape == (0, 128)


def test_long_contexts_in_parts() -> None:
    """A token behind 2,300 positions is attended in three parts, among a prompt it is not."""
    made = model(tiny_medgemma())
    native = decoder(made)
    ids = np.random.default_rng(0).integers(0, 120, 2304).tolist()
    expected = whole(native, made, ids)
    native.allocate(36, 36)
    tape = Tape(made, ids, range(36))
    native.forward([tape.next(2300, 0)])
    ones = torch.cat([torch.from_numpy(native.forward([tape.next(1)])) for _ in range(4)])
    # The parts are added up in another order.
    assert difference(ones, expected[2300:]) <= 2**-6


@pytest.mark.parametrize(("format", "kv_format"), FORMATS)
def test_threads_change_nothing(format: str, kv_format: str) -> None:
    made = model(tiny_medgemma())
    ids = np.random.default_rng(0).integers(0, 120, 1100).tolist()
    one = decoder(made, format, kv_format)
    three = decoder(made, format, kv_format, threads=3)
    assert torch.equal(whole(one, made, ids), whole(three, made, ids))
    last = ChunkStruct.of(
        [1], start=1100, global_pages=range(17, -1, -1), local_pages=range(17, -1, -1), logits=1
    )
    assert np.array_equal(one.forward([last]), three.forward([last]))


def test_a_position_may_be_written_again() -> None:
    """Drafts that were not taken leave nothing behind."""
    made, ids = model(tiny_medgemma()), drawn(TWO_PAGES)
    native = decoder(made)
    expected = whole(native, made, ids)
    native.allocate(3, 3)
    tape = Tape(made, ids, [0, 1, 2])
    native.forward([tape.next(70, 0)])
    drafts = drawn("zzzzz")
    pages = [0, 1, 2]
    native.forward([ChunkStruct.of(drafts, start=70, global_pages=pages, local_pages=pages)])
    assert_same(torch.from_numpy(native.forward([tape.next(61)])), expected[70:])


def test_a_copied_page_goes_on_as_the_first() -> None:
    made, ids = model(tiny_medgemma()), drawn(THREE_WINDOWS)
    native = decoder(made)
    expected = whole(native, made, ids)
    native.allocate(2, 3)
    tape = Tape(made, ids, [0])
    native.forward([tape.next(12, 0)])
    native.copy_page(0, 1, is_global=True)
    native.copy_page(0, 2, is_global=False)
    native.forward([Tape(made, drawn("zyxwv"), [0]).next(5, 0)])
    rest = ChunkStruct.of(ids[12:], start=12, global_pages=[1], local_pages=[2], logits=12)
    assert_same(torch.from_numpy(native.forward([rest])), expected[12:])


@pytest.mark.parametrize("kv_format", ["bf16", "int8"])
def test_nothing_of_a_page_s_last_owner_is_seen(kv_format: str) -> None:
    """Not even what is not a number."""
    made, ids = model(tiny_medgemma()), drawn(TEXT)
    native = decoder(made, "bf16", kv_format)
    expected = whole(native, made, ids)
    poison = torch.full((1, 4, 64), torch.nan)
    broken = native.forward([Tape(made, drawn(ONE_IMAGE), [0], poison).next(10)])
    assert np.isnan(broken[-1]).all()
    assert torch.equal(torch.from_numpy(native.forward([Tape(made, ids, [0]).next(7)])), expected)


def test_allocated_again_means_empty() -> None:
    made, ids = model(tiny_medgemma()), drawn(TEXT)
    native = decoder(made)
    assert torch.equal(whole(native, made, ids), whole(native, made, ids))
    with pytest.raises(ValueError, match="was not allocated"):
        native.forward([Tape(made, ids, [1]).next(7)])


def test_pages_have_the_size_of_their_layers() -> None:
    made = model(tiny_medgemma())  # three local layers, one global, two heads of 16
    one_layer = 2 * 2 * 64 * 16
    assert decoder(made).page_bytes() == (2 * one_layer, 3 * 2 * one_layer)
    scales = 2 * 2 * 64 * 4
    int8 = decoder(made, kv_format="int8")
    assert int8.page_bytes() == (one_layer + scales, 3 * (one_layer + scales))


def chunk(ids: list[int], **fields: Any) -> ChunkStruct:
    return ChunkStruct.of(ids, **{"start": 0, "global_pages": [0], "local_pages": [0], **fields})


@pytest.fixture(scope="module")
def native() -> Decoder:
    made = decoder(model(tiny_medgemma()))
    made.allocate(2, 2)
    return made


SOFT = soft_rows([120] * 8, model(tiny_medgemma())).flatten(0, 1).numpy()


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (chunk([]), "without positions"),
        (chunk([1], logits=2), "more scores"),
        (chunk([1], start=-1), "without positions"),
        (chunk([128]), "beyond the vocabulary"),
        (chunk([-1]), "beyond the vocabulary"),
        (chunk([1], global_pages=[2]), "page"),
        (chunk([1], local_pages=[-1]), "page"),
        (chunk([1], global_pages=[]), "page"),
        (chunk([1], start=64), "page"),
        (chunk([1] * 65), "page"),
        (chunk([1, 120, 120, 120], soft_SD=SOFT[:3]), "follow one another"),
        (chunk([120, 120, 1, 120, 120], soft_SD=SOFT[:4]), "follow one another"),
        (chunk([120] * 4), "embeddings"),
        (chunk([120] * 4, soft_SD=SOFT), "embeddings"),
        (chunk([1, 2], soft_SD=SOFT[:4]), "embeddings"),
        (chunk([120] * 4, soft_SD=SOFT[:4, :32]), "another width"),
    ],
)
def test_what_does_not_hold_together_is_refused(
    native: Decoder, refused: ChunkStruct, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        native.forward([chunk([1, 2, 3]), refused])


def test_a_local_page_that_has_left_the_window_is_not_needed(native: Decoder) -> None:
    native.forward([chunk([1] * 64 + [2] * 6, global_pages=[0, 1], local_pages=[0, 1])])
    with pytest.raises(ValueError, match="page"):
        native.forward([chunk([5], start=70, global_pages=[0, 1], local_pages=[-1, 1])])
    native.forward([chunk([3], start=70, global_pages=[0, 1], local_pages=[0, 1])])
    native.forward([chunk([5], start=71, global_pages=[0, 1], local_pages=[-1, 1])])


def test_other_formats_of_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="'int4'"):
        decoder(model(tiny_medgemma()), kv_format="int4")
