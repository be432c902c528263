"""Counts of an engine, for whoever watches it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """What an engine does, and has done since it was made.

    Attributes:
        running: requests that are worked on.
        waiting: requests that wait.
        pages_used: global pages that running requests use.
        pages_kept: global pages that hold what is known and nobody uses.
        pages_total: global pages in all.
        prompt_tokens: ids of prompts that were begun.
        cached_tokens: how many of them were known.
        new_tokens: ids generated.
        drafted_tokens: ids guessed.
        accepted_tokens: how many of them were right.
        preemptions: how often a request lost its place for want of pages.
    """

    running: int
    waiting: int
    pages_used: int
    pages_kept: int
    pages_total: int
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    preemptions: int
