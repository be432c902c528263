"""Decides what one step reads: a token of every answer, and as much of the prompts as fits."""

from collections.abc import Iterator
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from osler.errors import MemoryLimitError
from osler.inference.cache import Cache
from osler.inference.fair_queue import FairQueue
from osler.inference.images import PromptImage
from osler.inference.limits import Limits
from osler.inference.prefix import common_length
from osler.inference.runner import Chunk
from osler.inference.sequence import Sequence
from osler.inference.speculation import DraftCost
from osler.models.pages import PAGE_TOKENS

# Bounds the vision tower's working memory, and how long a cancelling caller waits.
IMAGES_AT_ONCE = 4
# A sequence waits for another that is reading what both begin with, if it saves so many tokens.
WORTH_WAITING = PAGE_TOKENS // 2


class Work:
    """New positions of one sequence; what it says stays, whatever becomes of the sequence.

    Attributes:
        sequence: whose.
        end: the position behind the last that is known.
        drafts: guessed tokens behind it.
        forced: the drafts are what a constraint demands, not what was looked up.
        tokens: positions that are read.
        scores: positions whose scores are wanted.
    """

    def __init__(
        self, sequence: Sequence, end: int, drafts: list[int] | None = None, *, forced: bool = False
    ) -> None:
        self.sequence = sequence
        self.end = end
        self.drafts = drafts or []
        self.forced = forced
        self.tokens = end - sequence.read + len(self.drafts)
        self.scores = 1 + len(self.drafts) if end == len(sequence.answer.ids) else 0

    def chunk(self) -> Chunk:
        """What the runner is told."""
        sequence = self.sequence
        soft = [sequence.soft[i.digest] for i in sequence.images_between(sequence.read, self.end)]
        return Chunk(
            ids=[*sequence.answer.ids[sequence.read : self.end], *self.drafts],
            start=sequence.read,
            global_pages=sequence.global_pages,
            local_pages=sequence.local_pages,
            soft_TD=np.concatenate(soft) if soft else None,
            logits=self.scores,
        )


class Scheduler:
    """Who waits, who runs, and in which order.

    A request that runs may lose its place when pages run out: the youngest first, so that the
    oldest always comes to its end. What it had read stays known as long as there is room.

    Attributes:
        queue: requests that wait.
        running: requests with a place, oldest first.
        cost: of guessing, as observed.
        preemptions: how often a request lost its place.
    """

    def __init__(self, cache: Cache, limits: Limits) -> None:
        self.queue = FairQueue(limits)
        self.running: list[Sequence] = []
        self.cost = DraftCost()
        self.preemptions = 0
        self._cache = cache
        self._limits = limits

    @property
    def has_work(self) -> bool:
        """Whether any request is not done."""
        return bool(self.running) or len(self.queue) > 0

    def sweep(self) -> None:
        """End what was called off or is late."""
        for sequence in list(self.running):
            if reason := sequence.reason_to_end():
                self.leave(sequence)
                sequence.finish(reason)
        for sequence, reason in self.queue.sweep():
            sequence.finish(reason)

    def admit(self) -> None:
        """Give places to those who wait, and let them go on from what is known."""
        while len(self.running) < self._limits.max_running:
            sequence = self.queue.first()
            if sequence is None or (self.running and not self._cache.fits(sequence)):
                break
            self.queue.take()
            sequence.admit()
            self.running.append(sequence)
        for sequence in self.running:
            if sequence.node is None and not self._waits(sequence):
                self._cache.begin(sequence)

    def images_to_embed(self) -> list[PromptImage]:
        """The images that the prompt in turn lacks, a few at a time; fewer while others answer."""
        sequence = next(self._prompts(), None)
        if sequence is None:
            return []
        wanted: dict[int, PromptImage] = {}
        for image in sequence.images:
            if image.start >= sequence.read and image.digest not in sequence.soft:
                known = self._cache.soft_tokens.get(sequence.tenant, image)
                if known is None:
                    wanted[image.digest] = image
                else:
                    sequence.soft[image.digest] = known
        answering = any(other.decodes for other in self.running)
        return list(wanted.values())[: 1 if answering else IMAGES_AT_ONCE]

    def embedded(
        self, images: list[PromptImage], soft_NTD: NDArray[np.float32], seconds: float
    ) -> None:
        """Take the embeddings of the images that were to be embedded."""
        sequence = next(self._prompts())
        sequence.seconds["image_encode_s"] += seconds
        for image, soft_TD in zip(images, soft_NTD, strict=True):
            # A copy, as a part would keep all of them in memory.
            sequence.soft[image.digest] = soft_TD.copy()
            self._cache.soft_tokens.put(sequence.tenant, image, sequence.soft[image.digest])

    def plan(self) -> list[Work]:
        """Share the step out, and give everyone in it the pages for that."""
        works: list[Work] = []
        answering = [sequence for sequence in self.running if sequence.decodes]
        for sequence in answering:
            if sequence in self.running:
                works += self._reserved(self._next_token(sequence, len(answering)))
        left = max(PAGE_TOKENS, self._limits.step_tokens - sum(work.tokens for work in works))
        prompts = list(self._prompts())
        for sequence in prompts:
            end = self._end(sequence, left, first=sequence is prompts[0])
            if sequence in self.running and end > sequence.read:
                works += self._reserved(Work(sequence, end))
                left -= end - sequence.read
        return [work for work in works if work.sequence in self.running]

    def leave(self, sequence: Sequence) -> None:
        """Take a sequence's place and pages."""
        self.running.remove(sequence)
        if sequence.node is not None:
            self._cache.note(sequence, tail=True)
        self._cache.release(sequence)

    def fail(self, error: BaseException) -> None:
        """End all that may be the cause of an error, without caring for their pages."""
        failed, self.running = self.running, []
        for sequence in failed or self.queue.take_all():
            sequence.fail(error)

    def _prompts(self) -> Iterator[Sequence]:
        """Those whose prompt is being read, oldest first."""
        return (s for s in self.running if s.node is not None and not s.decodes)

    def _waits(self, sequence: Sequence) -> bool:
        """Whether another is reading what this one begins with."""
        known = None
        for other in self._prompts():
            if other.tenant != sequence.tenant:
                continue
            common = min(common_length(other.keys, sequence.keys), len(sequence.keys) - 1)
            if other.read // PAGE_TOKENS * PAGE_TOKENS < common:
                known = self._cache.match(sequence).length if known is None else known
                if sequence.cut(common) - known >= WORTH_WAITING:
                    return True
        return False

    def _next_token(self, sequence: Sequence, answering: int) -> Work:
        """The last token, with what may follow it."""
        answer, end = sequence.answer, len(sequence.answer.ids)
        drafts = answer.forced(self._limits.draft_tokens)
        if drafts:
            return Work(sequence, end, drafts, forced=True)
        length = answer.room(sequence.policy.length(self.cost.share, answering))
        if length:
            drafts = sequence.lookup.draft(sequence.keys, length)
            # An image's keys are below all ids; an answer holds no image.
            drafts = list(takewhile(lambda key: key >= 0, drafts))
        return Work(sequence, end, drafts)

    def _end(self, sequence: Sequence, left: int, *, first: bool) -> int:
        """How far to read a prompt: at most so many tokens, and no image in part."""
        end = min(len(sequence.answer.ids), sequence.read + max(0, left))
        for image in sequence.images:
            if sequence.read <= image.start < end and image.digest not in sequence.soft:
                end = image.start
        cut = sequence.image_at(end)
        if cut is None or cut.start == end:
            return end
        if cut.start > sequence.read or not first:
            return cut.start
        return cut.end  # an image that is longer than a step takes one of its own

    def _reserved(self, work: Work) -> list[Work]:
        """The work, with pages for it; none if it lost its place to older ones."""
        sequence = work.sequence
        while not self._cache.reserve(sequence, work.end + len(work.drafts)):
            youngest = self.running[-1]
            if youngest is sequence and len(self.running) == 1:
                self.leave(sequence)
                sequence.fail(MemoryLimitError("the pages do not hold this one request"))
                return []
            self._preempt(youngest)
            if youngest is sequence:
                return []
        return [work]

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.leave(sequence)
        self.queue.put_back(sequence)
