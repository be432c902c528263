"""The largest values and their order."""

import numpy as np
import pytest

from osler.native.library import Library
from osler.native.top_k import top_k


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000, 4096])
@pytest.mark.parametrize("k", [1, 2, 17, 300])
def test_as_a_stable_sort_has_them(native: Library, count: int, k: int) -> None:
    values_V = np.random.default_rng(count).normal(size=count).astype(np.float32)
    places = top_k(native, values_V, min(k, count))
    assert np.array_equal(places, np.argsort(-values_V, kind="stable")[:k])


def test_equal_values_come_in_their_order(native: Library) -> None:
    values_V = np.tile(np.array([1, 3, 2, 3], np.float32), 100)
    assert np.array_equal(top_k(native, values_V, 203), np.argsort(-values_V, kind="stable")[:203])


def test_scores_that_are_all_banned_but_one(native: Library) -> None:
    values_V = np.full(500, -np.inf, np.float32)
    values_V[321] = 1
    assert top_k(native, values_V, 3).tolist() == [321, 0, 1]
