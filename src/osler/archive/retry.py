"""Trying again, with more and more patience."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from osler.archive.settings import LinkSettings
from osler.errors import ArchiveUnreachableError

_LONGEST_WAIT_S = 60.0

_T = TypeVar("_T")


def retried(
    step: Callable[[], _T], settings: LinkSettings, left: Callable[[], int] = lambda: 0
) -> _T:
    """Run a step until it succeeds, or has failed too often.

    Args:
        step: something that may be done twice.
        settings: how often, and how long to wait between.
        left: how much there is to do; a try that has done some of it begins the count anew.

    Raises:
        ArchiveUnreachableError: the last try's.
    """
    failures, before = 0, left()
    while True:
        try:
            return step()
        except ArchiveUnreachableError:
            now = left()
            failures = 1 if now < before else failures + 1
            before = now
            if failures >= settings.attempts:
                raise
        wait_s = min(settings.wait_s * 2 ** (failures - 1), _LONGEST_WAIT_S)
        # Not all clients of an archive that was restarted should come back at one moment.
        time.sleep(wait_s * random.uniform(0.5, 1.0))
