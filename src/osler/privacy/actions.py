"""What was done to a file: what kind of thing, where, how often; never what stood there."""

from collections import Counter, defaultdict


class Actions:
    """Counts of what was done, by action and place."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)

    def note(self, action: str, place: str, count: int = 1) -> None:
        """Count something that was done.

        Args:
            action: "removed", "emptied", "replaced", "new UID", "shifted", "cleaned" and so on.
            place: a name of the standard's, as "PatientName (0010,0010)"; no words of a file.
            count: how often.
        """
        if count:
            self._counts[action][place] += count

    def record(self) -> dict[str, dict[str, int]]:
        """The counts, for a report."""
        return {
            action: dict(sorted(places.items())) for action, places in sorted(self._counts.items())
        }
