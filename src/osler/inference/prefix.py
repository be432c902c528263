"""What was read before, by tenant, so that the same beginning is not read again.

Each tenant has a tree. A node is a page of positions, known by its keys: token ids, and for the
tokens of an image a number made of the image's content. Keys are compared, not hashed, so two
beginnings are one only where they are the same. A node's path says all that stands before it, and
so what its keys and values are.

The last node of a match may be taken in part; its page is then to be copied, as another sequence
goes on in it differently.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from osler.inference.pages import PagePool
from osler.models.pages import PAGE_TOKENS

GONE = -1


@dataclass(eq=False)
class Node:
    """A page of positions behind those of its parent.

    Attributes:
        parent: the page before; None for a tenant's root, which holds nothing.
        keys: of its positions; fewer than a page's only where nothing stands behind them.
        global_page: where its keys and values of global layers are.
        local_page: those of local layers, or `GONE`.
        children: the pages behind it, by their first key.
        pins: running sequences that go on from here.
    """

    parent: "Node | None"
    keys: tuple[int, ...] = ()
    global_page: int = GONE
    local_page: int = GONE
    children: dict[int, list["Node"]] = field(default_factory=dict)
    pins: int = 0


@dataclass(frozen=True)
class Match:
    """The longest known beginning.

    Attributes:
        path: nodes of its pages, in order.
        length: positions, all of those in `path` or fewer.
    """

    path: list[Node]
    length: int


class PrefixTree:
    """The trees of all tenants, over one pool of pages of each kind."""

    def __init__(self, global_pool: PagePool, local_pool: PagePool, window: int) -> None:
        """Start with nothing known.

        Args:
            global_pool: pages of global layers.
            local_pool: pages of local layers.
            window: positions that local layers see.
        """
        self._global_pool = global_pool
        self._local_pool = local_pool
        self._window = window
        self._roots: dict[str, Node] = {}
        self._most_roots = 64
        # Least recently used first; children before their parents, as those are touched later.
        self._nodes: OrderedDict[Node, None] = OrderedDict()
        self._with_local: OrderedDict[Node, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    def root(self, tenant: str) -> Node:
        """Where a tenant's sequences begin."""
        if tenant not in self._roots and len(self._roots) >= self._most_roots:
            # Of tenants whose pages are all gone nothing is left to remember.
            self._roots = {t: r for t, r in self._roots.items() if r.children or r.pins}
            self._most_roots = max(64, 2 * len(self._roots))
        return self._roots.setdefault(tenant, Node(None))

    def match(
        self, tenant: str, keys: Sequence[int], cut: Callable[[int], int] = lambda length: length
    ) -> Match:
        """Find the longest beginning that can be gone on from, short of the whole.

        Args:
            tenant: whose.
            keys: of all positions of a sequence.
            cut: from a length to the nearest one at or below it where a sequence may be cut.
        """
        path: list[Node] = []
        length, last = 0, len(keys) - 1
        node = self._roots.get(tenant)
        while node is not None and length == PAGE_TOKENS * len(path) < last:
            wanted = tuple(keys[length : min(length + PAGE_TOKENS, last)])
            node, common = _closest(node.children.get(wanted[0], ()), wanted)
            if node is not None:
                path.append(node)
                length += common
        length = self._readable(path, length, cut)
        path = path[: -(-length // PAGE_TOKENS)]
        return Match(path, length)

    def touch(self, match: Match) -> None:
        """Count a match as used now."""
        first_seen = max(0, match.length - self._window + 1) // PAGE_TOKENS
        for index in reversed(range(len(match.path))):
            self._nodes.move_to_end(match.path[index])
            if index >= first_seen:
                self._with_local.move_to_end(match.path[index])

    def touch_path(self, node: Node) -> None:
        """Count a node and all before it as used now."""
        while node.parent is not None:
            self._nodes.move_to_end(node)
            node = node.parent

    def insert(
        self, parent: Node, keys: tuple[int, ...], global_page: int, local_page: int
    ) -> Node:
        """Make a page known.

        Args:
            parent: the page before, or the root.
            keys: of the page's positions; fewer than a page for the end of a sequence.
            global_page: used by the caller.
            local_page: likewise, or `GONE`.

        Returns:
            The node; one that was there before, if these keys are known already.
        """
        siblings = parent.children.setdefault(keys[0], [])
        for sibling in list(siblings):
            if sibling.keys[: len(keys)] == keys:
                if sibling.local_page == GONE and local_page != GONE and sibling.keys == keys:
                    self._keep_local(sibling, local_page)
                return sibling
            if keys[: len(sibling.keys)] == sibling.keys:
                self._remove(sibling)  # what it says the new one says too
        node = Node(parent, keys, global_page)
        parent.children.setdefault(keys[0], []).append(node)
        self._global_pool.keep(global_page)
        self._nodes[node] = None
        if local_page != GONE:
            self._keep_local(node, local_page)
        return node

    def give_up_global(self) -> bool:
        """Forget the page that was not used for longest; whether there was one to forget."""
        for node in self._nodes:
            if not (node.children or node.pins or self._global_pool.is_used(node.global_page)):
                self._remove(node)
                return True
        return False

    def give_up_local(self) -> bool:
        """Forget the local layers' part of a page, that which was not used for longest."""
        for node in self._with_local:
            if not self._local_pool.is_used(node.local_page):
                self._forget_local(node)
                return True
        return False

    def _readable(self, path: list[Node], length: int, cut: Callable[[int], int]) -> int:
        """Shorten a match until all that its next position sees on local layers is there."""
        while (length := cut(length)) > 0:
            first_seen = max(0, length - self._window + 1) // PAGE_TOKENS
            pages = range(first_seen, -(-length // PAGE_TOKENS))
            gone = [page for page in pages if path[page].local_page == GONE]
            if not gone:
                break
            length = gone[-1] * PAGE_TOKENS
        return length

    def _keep_local(self, node: Node, page: int) -> None:
        node.local_page = page
        self._local_pool.keep(page)
        self._with_local[node] = None

    def _forget_local(self, node: Node) -> None:
        self._local_pool.forget(node.local_page)
        node.local_page = GONE
        del self._with_local[node]

    def _remove(self, node: Node) -> None:
        assert node.parent is not None
        siblings = node.parent.children[node.keys[0]]
        siblings.remove(node)
        if not siblings:
            del node.parent.children[node.keys[0]]
        if node.local_page != GONE:
            self._forget_local(node)
        self._global_pool.forget(node.global_page)
        del self._nodes[node]


def _closest(nodes: Sequence[Node], keys: tuple[int, ...]) -> tuple[Node | None, int]:
    """The node that shares most keys with these, and how many."""
    best, most = None, 0
    for node in nodes:
        common = common_length(node.keys, keys)
        if common > most:
            best, most = node, common
    return best, most


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the keys with which both begin."""
    shorter = min(len(one), len(other))
    for start in range(0, shorter, PAGE_TOKENS):
        if one[start : start + PAGE_TOKENS] != other[start : start + PAGE_TOKENS]:
            pairs: Iterator[int] = (i for i in range(start, shorter) if one[i] != other[i])
            return next(pairs, shorter)
    return shorter
