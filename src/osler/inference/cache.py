"""Gives sequences their pages, and remembers what is in them when they are done."""

from osler.inference.images import SoftTokens
from osler.inference.limits import Limits, page_counts, pages_for
from osler.inference.pages import PagePool
from osler.inference.prefix import GONE, Match, PrefixTree
from osler.inference.runner import Runner
from osler.inference.sequence import Sequence
from osler.models.pages import PAGE_TOKENS


class Cache:
    """All pages of one runner, and the embeddings of images.

    Attributes:
        global_pool: pages of global layers.
        local_pool: pages of local layers.
        tree: what is known by its beginning.
        soft_tokens: what is known of images.
        context_tokens: the most ids of prompt and answer together.
        prompt_tokens: ids of the prompts that were begun.
        cached_tokens: how many of them were known.
    """

    def __init__(self, runner: Runner, limits: Limits) -> None:
        self._runner = runner
        self._limits = limits
        text = runner.config.text_config
        self._window = text.sliding_window
        self._counts = page_counts(runner.config, runner.page_bytes(), runner.free_bytes(), limits)
        # One page is left for the copy of a known page that another goes on in.
        self.context_tokens = min(text.max_position_embeddings, (self._counts[0] - 1) * PAGE_TOKENS)
        self.prompt_tokens = self.cached_tokens = 0
        runner.allocate(*self._counts)
        self.forget()

    def forget(self) -> None:
        """Take all pages as free and nothing as known."""
        self.global_pool, self.local_pool = map(PagePool, self._counts)
        self.tree = PrefixTree(self.global_pool, self.local_pool, self._window)
        self.soft_tokens = SoftTokens(self._limits.image_bytes)

    def match(self, sequence: Sequence) -> Match:
        """What is known of a sequence."""
        return self.tree.match(sequence.tenant, sequence.keys, sequence.cut)

    def fits(self, sequence: Sequence) -> bool:
        """Whether a sequence can be read, and begin to answer, with the pages that are not used."""
        path = self.match(sequence).path
        shared_global = sum(self.global_pool.is_used(node.global_page) for node in path)
        shared_local = sum(
            node.local_page != GONE and self.local_pool.is_used(node.local_page) for node in path
        )
        pages = pages_for(len(sequence.answer.ids)) + 2
        window = pages_for(self._window + self._limits.step_tokens) + 2
        return (
            pages - shared_global <= self.global_pool.available
            and min(pages, window) - min(shared_local, window - 2) <= self.local_pool.available
        )

    def begin(self, sequence: Sequence) -> bool:
        """Let a sequence go on from what is known of it; False where no page is left for that."""
        match = self.match(sequence)
        self.tree.touch(match)
        whole, rest = divmod(match.length, PAGE_TOKENS)
        first_seen = max(0, match.length - self._window + 1) // PAGE_TOKENS
        for page, node in enumerate(match.path):
            self.global_pool.use(node.global_page)
            sequence.global_pages.append(node.global_page)
            local_page = node.local_page if page >= first_seen else GONE
            if local_page != GONE:
                self.local_pool.use(local_page)
            sequence.local_pages.append(local_page)
        sequence.node = match.path[whole - 1] if whole else self.tree.root(sequence.tenant)
        sequence.node.pins += 1
        sequence.known_pages = whole
        if rest and not self._copy_last(sequence):
            self.release(sequence)
            return False
        sequence.read = match.length
        if sequence.cached_tokens is None:
            sequence.cached_tokens = match.length
            self.prompt_tokens += sequence.answer.prompt_tokens
            self.cached_tokens += match.length
        return True

    def reserve(self, sequence: Sequence, end: int) -> bool:
        """Give a sequence pages up to a position; False where none is left."""
        first_seen = max(0, sequence.read - self._window + 1) // PAGE_TOKENS
        for page in range(min(first_seen, len(sequence.local_pages)) - 1, -1, -1):
            if sequence.local_pages[page] == GONE:
                break  # and so are all before it
            self.local_pool.release(sequence.local_pages[page])
            sequence.local_pages[page] = GONE
        for pages, take in (
            (sequence.global_pages, self._take_global),
            (sequence.local_pages, self._take_local),
        ):
            while len(pages) < pages_for(end):
                if (taken := take()) is None:
                    return False
                pages.append(taken)
        return True

    def note(self, sequence: Sequence, *, tail: bool) -> None:
        """Make known what a sequence has read.

        Args:
            sequence: which.
            tail: the page that it has filled in part as well.
        """
        assert sequence.node is not None
        keys = sequence.keys
        while (end := (sequence.known_pages + 1) * PAGE_TOKENS) <= sequence.read:
            page = sequence.known_pages
            node = self.tree.insert(
                sequence.node,
                tuple(keys[end - PAGE_TOKENS : end]),
                sequence.global_pages[page],
                sequence.local_pages[page],
            )
            node.pins += 1
            sequence.node.pins -= 1
            sequence.node = node
            sequence.known_pages += 1
        page = sequence.known_pages
        if tail and (rest := tuple(keys[page * PAGE_TOKENS : sequence.read])):
            self.tree.insert(
                sequence.node, rest, sequence.global_pages[page], sequence.local_pages[page]
            )

    def release(self, sequence: Sequence) -> None:
        """Take all pages of a sequence back; what was made known of it stays known for a while."""
        if sequence.node is None:
            return
        self.tree.touch_path(sequence.node)
        sequence.node.pins -= 1
        sequence.node = None
        sequence.known_pages = sequence.read = 0
        for page in sequence.global_pages:
            self.global_pool.release(page)
        for page in sequence.local_pages:
            if page != GONE:
                self.local_pool.release(page)
        sequence.global_pages, sequence.local_pages = [], []

    def _copy_last(self, sequence: Sequence) -> bool:
        """Put a copy in the place of the last page, as the sequence goes on in it differently."""
        global_page, local_page = self._take_global(), self._take_local()
        if global_page is None or local_page is None:
            if global_page is not None:
                self.global_pool.release(global_page)
            if local_page is not None:
                self.local_pool.release(local_page)
            return False
        known_global, known_local = sequence.global_pages[-1], sequence.local_pages[-1]
        self._runner.copy_pages([(known_global, global_page)], [(known_local, local_page)])
        sequence.global_pages[-1], sequence.local_pages[-1] = global_page, local_page
        self.global_pool.release(known_global)
        self.local_pool.release(known_local)
        return True

    def _take_global(self) -> int | None:
        while not self.global_pool.free and self.tree.give_up_global():
            pass
        return self.global_pool.take()

    def _take_local(self) -> int | None:
        while not self.local_pool.free and self.tree.give_up_local():
            pass
        return self.local_pool.take()
