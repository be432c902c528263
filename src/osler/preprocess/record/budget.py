"""Keeps what is most useful of a record within a budget of tokens, and says what it left out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from osler.errors import PromptError
from osler.preprocess.record.lines import Block

_LONG = 4  # a block of more than a fourth of the budget waits until all others have had their turn


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What was left out of one kind, and the days of the first and the last; "" for none."""

    kind: str
    count: int
    first_day: str
    last_day: str

    def __str__(self) -> str:
        many = f"{self.count:,} {_plural(self.kind) if self.count > 1 else self.kind}"
        if not self.last_day:
            return many
        days = dict.fromkeys((self.first_day, self.last_day))
        return f"{many} ({' to '.join(days)})"


def fit(
    header: str, blocks: Sequence[Block], budget: int | None, count: Callable[[str], int]
) -> tuple[str, tuple[Dropped, ...]]:
    """Write the most useful blocks, in their order.

    Args:
        header: stands on top and always stays.
        blocks: in the order of the text.
        budget: tokens that the whole text may have; None for no limit.
        count: how many tokens a text has.

    Returns:
        The text, which ends with what was left out; and that by kind. Nothing that was left out is
        more useful than anything kept, except that blocks of more than a fourth of the budget come
        after all others.

    Raises:
        PromptError: a budget that does not even hold the header.
    """
    if budget is None:
        return _write(header, blocks, ()), ()
    costs = [count("\n".join(block.lines)) + 1 for block in blocks]
    order = sorted(
        range(len(blocks)),
        key=lambda i: (costs[i] * _LONG <= budget, blocks[i].usefulness),
        reverse=True,
    )
    most, spent = 0, count(header)
    while most < len(order) and spent + costs[order[most]] <= budget:
        spent += costs[order[most]]
        most += 1
    # The costs are near the truth: what is said of the rest, and joints between lines, come on top.
    for kept in range(most, -1, -1):
        places = sorted(order[:kept])
        dropped = _dropped([blocks[i] for i in order[kept:]])
        text = _write(header, [blocks[i] for i in places], dropped)
        if count(text) <= budget:
            return text, dropped
    raise PromptError(f"a budget of {budget:,} tokens does not hold the first lines of the record")


def _write(header: str, blocks: Sequence[Block], dropped: Sequence[Dropped]) -> str:
    lines = [header] if header else []
    section = ""
    for block in blocks:
        if block.section != section:
            section = block.section
            lines += ["", f"{section}:"]
        lines += block.lines
    if dropped:
        lines += ["", f"Left out for want of room: {', '.join(map(str, dropped))}."]
    return "\n".join(lines)


def _dropped(blocks: Sequence[Block]) -> tuple[Dropped, ...]:
    counts = Counter(block.kind for block in blocks)
    found = []
    for kind, number in counts.most_common():
        days = sorted(block.day for block in blocks if block.kind == kind and block.day)
        first, last = (days[0], days[-1]) if days else ("", "")
        found.append(Dropped(kind=kind, count=number, first_day=first, last_day=last))
    return tuple(found)


def _plural(kind: str) -> str:
    """The plural of a kind.

    >>> _plural("allergy"), _plural("visit"), _plural("imaging")
    ('allergies', 'visits', 'imaging studies')
    """
    if kind == "imaging":
        return "imaging studies"
    return f"{kind[:-1]}ies" if kind.endswith("y") and kind != "survey" else f"{kind}s"
