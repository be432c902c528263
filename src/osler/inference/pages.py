"""Which pages of one kind are free, in use, or kept for later."""


class PagePool:
    """Counts who needs each page; knows nothing of what is in it.

    A page is *used* by running sequences and *kept* by the prefix tree. It is free when neither
    needs it, and idle when only the tree does.

    Attributes:
        total: how many pages there are.
        in_use: how many of them running sequences use.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.in_use = 0
        # The page that was freed last is given out first: its memory is resident already.
        self._free = list(reversed(range(total)))
        self._users = [0] * total
        self._keepers = [0] * total

    @property
    def available(self) -> int:
        """Pages that are free, or would be if the tree gave up all that it can."""
        return self.total - self.in_use

    @property
    def free(self) -> int:
        """Pages that nobody needs."""
        return len(self._free)

    def take(self) -> int | None:
        """A free page, now used; None where there is none."""
        if not self._free:
            return None
        page = self._free.pop()
        self._users[page] = 1
        self.in_use += 1
        return page

    def is_used(self, page: int) -> bool:
        """Whether a running sequence uses it."""
        return self._users[page] > 0

    def use(self, page: int) -> None:
        """Count one user more of a page that is used or kept."""
        self.in_use += self._users[page] == 0
        self._users[page] += 1

    def release(self, page: int) -> None:
        """Count one user less."""
        self._users[page] -= 1
        self.in_use -= self._users[page] == 0
        self._settle(page)

    def keep(self, page: int) -> None:
        """Count one keeper more of a page that is used or kept."""
        self._keepers[page] += 1

    def forget(self, page: int) -> None:
        """Count one keeper less."""
        self._keepers[page] -= 1
        self._settle(page)

    def _settle(self, page: int) -> None:
        if self._users[page] == self._keepers[page] == 0:
            self._free.append(page)
