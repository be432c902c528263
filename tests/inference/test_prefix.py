"""Pages by what is in them: matches, copies, what is given up first, and counts that add up."""

import pytest

from osler.inference.pages import PagePool
from osler.inference.prefix import GONE, Node, PrefixTree, common_length
from osler.models.pages import PAGE_TOKENS

WINDOW = 100
FIRST, SECOND, THIRD = (tuple(range(start, start + PAGE_TOKENS)) for start in (0, 1000, 2000))


class Kept:
    """A tree, and pages that only it needs."""

    def __init__(self, pages: int = 8) -> None:
        self.global_pool, self.local_pool = PagePool(pages), PagePool(pages)
        self.tree = PrefixTree(self.global_pool, self.local_pool, WINDOW)

    def add(self, parent: Node, keys: tuple[int, ...], *, local: bool = True) -> Node:
        global_page = self.global_pool.take()
        local_page = self.local_pool.take() if local else GONE
        assert global_page is not None
        assert local_page is not None
        node = self.tree.insert(parent, keys, global_page, local_page)
        self.global_pool.release(global_page)
        if local:
            self.local_pool.release(local_page)
        return node

    def add_path(self, *pages: tuple[int, ...], tenant: str = "") -> list[Node]:
        nodes = [self.tree.root(tenant)]
        for keys in pages:
            nodes.append(self.add(nodes[-1], keys))
        return nodes[1:]


def test_a_match_is_the_longest_and_short_of_the_whole() -> None:
    kept = Kept()
    first, second = kept.add_path(FIRST, SECOND)
    branch = kept.add(first, THIRD[:10])
    for keys, length, path in (
        ([*FIRST, *SECOND, 7], 128, [first, second]),
        ([*FIRST, *SECOND], 127, [first, second]),
        ([*FIRST, *SECOND[:9], 7, 7], 73, [first, second]),
        ([*FIRST, *THIRD[:10], 7], 74, [first, branch]),
        ([*FIRST, 7], 64, [first]),
        ([*FIRST[:5], 7], 5, [first]),
        ([7, *FIRST], 0, []),
        ([0], 0, []),
    ):
        match = kept.tree.match("", list(keys))
        assert (match.length, match.path) == (length, path)


def test_tenants_have_trees_of_their_own() -> None:
    kept = Kept()
    kept.add_path(FIRST, tenant="a")
    assert kept.tree.match("b", [*FIRST, 7]).length == 0
    assert kept.tree.match("", [*FIRST, 7]).length == 0
    assert kept.tree.match("a", [*FIRST, 7]).length == 64


def test_tenants_without_pages_are_forgotten() -> None:
    kept = Kept()
    kept.add_path(FIRST, tenant="kept")
    pinned = kept.tree.root("pinned")
    pinned.pins += 1
    for n in range(1000):
        kept.tree.root(f"tenant {n}")
    assert len(kept.tree._roots) < 200
    assert kept.tree.match("kept", [*FIRST, 7]).length == 64
    assert kept.tree.root("pinned") is pinned


def test_a_match_is_cut_where_it_may_be() -> None:
    kept = Kept()
    kept.add_path(FIRST, SECOND)
    keys = [*FIRST, *SECOND[:20], 7]
    assert kept.tree.match("", keys, lambda length: min(length, 70)).length == 70
    assert kept.tree.match("", keys, lambda length: 0).length == 0


def test_a_match_ends_where_its_window_is_still_there() -> None:
    kept = Kept()
    first, _, third = kept.add_path(FIRST, SECOND, THIRD)
    keys = [*FIRST, *SECOND, *THIRD, 7]
    assert kept.tree.match("", keys).length == 192
    kept.tree._forget_local(first)
    # Position 192 sees from 93 on, so not the first page.
    assert kept.tree.match("", keys).length == 192
    assert kept.tree.match("", keys[:160]).length == 0  # position 159 sees from 60 on
    kept.tree._forget_local(third)
    assert kept.tree.match("", keys).length == 0  # position 128 sees from 29 on


def test_what_was_not_used_for_longest_goes_first() -> None:
    kept = Kept()
    (a,) = kept.add_path(FIRST)
    (b,) = kept.add_path(SECOND)
    b_end = kept.add(b, THIRD)
    kept.tree.touch(kept.tree.match("", [*FIRST, 7]))
    assert kept.tree.give_up_global()
    assert b_end not in kept.tree._nodes  # the end before its beginning
    assert kept.tree.give_up_global()
    assert b not in kept.tree._nodes
    assert a in kept.tree._nodes
    assert kept.tree.give_up_global()
    assert not kept.tree.give_up_global()
    assert kept.global_pool.free == kept.global_pool.total


def test_what_is_used_or_gone_on_from_is_not_given_up() -> None:
    kept = Kept()
    first, second = kept.add_path(FIRST, SECOND)
    second.pins += 1
    assert not kept.tree.give_up_global()
    second.pins -= 1
    kept.global_pool.use(second.global_page)
    kept.local_pool.use(second.local_page)
    assert not kept.tree.give_up_global()
    assert kept.tree.give_up_local()
    assert first.local_page == GONE
    assert not kept.tree.give_up_local()


def test_a_page_that_was_begun_gives_way_to_the_same_page_full() -> None:
    kept = Kept()
    root = kept.tree.root("")
    kept.add(root, FIRST[:10])
    full = kept.add(root, FIRST)
    assert len(kept.tree) == 1
    assert kept.tree.match("", [*FIRST, 7]).path == [full]
    assert kept.add(root, FIRST[:20]) is full
    assert kept.add(root, FIRST) is full
    assert kept.global_pool.total - kept.global_pool.free == 1


def test_local_layers_come_back() -> None:
    kept = Kept()
    root = kept.tree.root("")
    node = kept.add(root, FIRST, local=False)
    assert kept.tree.match("", [*FIRST, 7]).length == 0
    assert kept.add(root, FIRST) is node
    assert kept.tree.match("", [*FIRST, 7]).length == 64


def test_a_pool_counts() -> None:
    pool = PagePool(2)
    page = pool.take()
    assert page is not None
    assert (pool.free, pool.in_use, pool.available) == (1, 1, 1)
    pool.keep(page)
    pool.use(page)
    pool.release(page)
    pool.release(page)
    assert (pool.free, pool.in_use, pool.available) == (1, 0, 2)
    pool.use(page)
    assert pool.is_used(page)
    pool.forget(page)
    assert (pool.free, pool.in_use) == (1, 1)
    pool.release(page)
    assert (pool.free, pool.in_use) == (2, 0)
    assert pool.take() == page  # its memory is resident
    assert pool.take() is not None
    assert pool.take() is None


@pytest.mark.parametrize("same", [0, 1, 63, 64, 65, 200])
def test_common_length(same: int) -> None:
    one, other = list(range(300)), list(range(300))
    other[same] = -1
    assert common_length(one, other) == same
    assert common_length(one, one[:same]) == same
