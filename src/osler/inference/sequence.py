"""One request on its way through the engine: ids, pages, and where the time went."""

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from osler.inference.continuation import Continuation, FinishReason
from osler.inference.images import PromptImage
from osler.inference.prefix import Node
from osler.inference.request import Request
from osler.inference.speculation import DraftPolicy, PromptLookup


class Sequence:
    """What the scheduler moves about.

    Attributes:
        request: who waits for it.
        answer: ids of prompt and answer, and their text.
        tenant: with whom it may share what was read.
        images: of the prompt, in order.
        read: positions whose keys and values are in its pages.
        global_pages: page i holds positions 64 i to 64 i + 63.
        local_pages: likewise; `GONE` behind the window.
        node: its last page that the prefix tree knows, or the tenant's root; None while it has no
            pages.
        known_pages: how many pages `node` and those before it are.
        soft: embeddings of images that are not read yet, by digest.
    """

    def __init__(
        self,
        request: Request,
        answer: Continuation,
        images: list[PromptImage],
        *,
        tenant: str,
        deadline_s: float | None,
        draft_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        """Be ready to wait for a place.

        Args:
            request: who waits for it.
            answer: the prompt.
            images: the prompt's.
            tenant: with whom it may share what was read.
            deadline_s: seconds after it is handed in when it ends as "timeout"; None for never.
            draft_tokens: the most tokens to guess at once.
            clock: the engine's.
        """
        self.request = request
        self.answer = answer
        self.images = images
        self.tenant = tenant
        self.read = 0
        self.global_pages: list[int] = []
        self.local_pages: list[int] = []
        self.node: Node | None = None
        self.known_pages = 0
        self.soft: dict[int, NDArray[np.float32]] = {}
        self.lookup = PromptLookup()
        self.policy = DraftPolicy(draft_tokens)
        self.cached_tokens: int | None = None
        self.seconds = dict.fromkeys(("image_encode_s", "prefill_s", "decode_s"), 0.0)
        self._clock = clock
        self._handed_in = clock()
        self._admitted: float | None = None
        self._deadline_s = deadline_s
        self._starts = [image.start for image in images]
        self._keys = list(answer.ids)
        for image in images:
            self._keys[image.start : image.end] = [image.key] * (image.end - image.start)

    @property
    def keys(self) -> list[int]:
        """What the prefix tree compares: ids, and at image tokens the image's key."""
        self._keys += self.answer.ids[len(self._keys) :]
        return self._keys

    @property
    def unread(self) -> int:
        """Positions to be read before the next token; more than one is a prompt, or the rest."""
        return len(self.answer.ids) - self.read

    @property
    def decodes(self) -> bool:
        """Whether only the last token is unread."""
        return self.unread == 1 and self.read >= self.answer.prompt_tokens

    @property
    def waiting_bytes(self) -> int:
        """Memory of its pixels."""
        return sum(image.pixels_CSS.nbytes for image in self.images)

    def hand_in(self) -> None:
        """Note the beginning of its wait."""
        self._handed_in = self._clock()

    def admit(self) -> None:
        """Note the end of its wait; a second time changes nothing."""
        if self._admitted is None:
            self._admitted = self._clock()

    def cut(self, length: int) -> int:
        """The nearest length at or below this one that cuts no image."""
        image = self.image_at(length)
        return length if image is None or length == image.start else image.start

    def image_at(self, place: int) -> PromptImage | None:
        """The image whose tokens a position is one of."""
        index = bisect_right(self._starts, place) - 1
        if index >= 0 and place < self.images[index].end:
            return self.images[index]
        return None

    def images_between(self, start: int, end: int) -> list[PromptImage]:
        """The images that lie in a part of the prompt."""
        return [i for i in self.images if start <= i.start and i.end <= end]

    def reason_to_end(self) -> FinishReason | None:
        """Whether it was called off or is late."""
        if self.request.is_cancelled:
            return "cancelled"
        waited_s = self._clock() - self._handed_in
        if self._deadline_s is not None and waited_s >= self._deadline_s:
            return "timeout"
        return None

    def finish(self, reason: FinishReason) -> None:
        """End the answer, if it has not ended itself, and tell who waits for it."""
        if self.answer.finish_reason is None:
            self.request.tell(*self.answer.finish(reason))
        admitted = self._clock() if self._admitted is None else self._admitted
        self.request.tell(
            self.answer.generation(
                queue_s=admitted - self._handed_in,
                cached_tokens=self.cached_tokens or 0,
                **self.seconds,
            )
        )

    def fail(self, error: BaseException) -> None:
        """End without an answer."""
        self.request.tell(error)
