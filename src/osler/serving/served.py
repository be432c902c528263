"""What a server serves: a model's preparation and its engine, and perhaps an encoder."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from osler.inference.continuation import Generation, Piece
from osler.inference.sampling import SamplingParams
from osler.inference.stats import EngineStats
from osler.preprocess.processor import Processor, Prompt
from osler.tasks.encoder import ImageTextEncoder


class Work(Protocol):
    """One answer in the making."""

    def __iter__(self) -> Iterator[Piece | Generation]:
        """Wait for its pieces and, at last, for the whole."""

    def cancel(self) -> None:
        """End it soon, from any thread; no matter if it has ended."""


class Engine(Protocol):
    """What makes answers; `osler.inference.engine.Engine` is one."""

    @property
    def context_tokens(self) -> int:
        """The most tokens of a prompt and its answer together."""

    def stats(self) -> EngineStats:
        """What it does now, and has done."""

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        tenant: str = "",
        deadline_s: float | None = None,
    ) -> Work:
        """Take on an answer, without waiting for it.

        Raises:
            QueueFullError: there is enough to do already.
            PromptError: the model cannot take the prompt.
        """


@dataclass(frozen=True, kw_only=True)
class Served:
    """One server's models.

    Attributes:
        name: the model's name in the API.
        notice: what its answers say about it.
        processor: makes its prompts.
        engine: makes its answers.
        encoder: makes embeddings, and has its own name; None where there is none.
    """

    name: str
    notice: str
    processor: Processor
    engine: Engine
    encoder: ImageTextEncoder | None = None

    @cached_property
    def image_size_px(self) -> int | None:
        """Side of the squares that the model takes; None where it reads text only."""
        vision = self.processor.config.vision_config
        return None if vision is None else vision.image_size

    def cards(self, created: int) -> dict[str, dict[str, Any]]:
        """Each model as `/v1/models` shows it, by name; one name may be of a model and an encoder.

        Args:
            created: when the server started, in Unix seconds.
        """
        config = self.processor.config
        cards: dict[str, dict[str, Any]] = {
            self.name: {
                "id": self.name,
                "object": "model",
                "created": created,
                "owned_by": "osler",
                "max_model_len": self.engine.context_tokens,
                "osler_notice": self.notice,
                "osler_version": config.medgemma_version,
                "osler_image_size_px": self.image_size_px,
                "osler_endpoints": ["/v1/chat/completions", "/v1/completions"],
            }
        }
        if self.encoder is not None:
            card = cards.setdefault(
                self.encoder.name,
                {
                    "id": self.encoder.name,
                    "object": "model",
                    "created": created,
                    "owned_by": "osler",
                    "osler_notice": self.encoder.notice,
                    "osler_endpoints": [],
                },
            )
            card["osler_endpoints"] = [*card["osler_endpoints"], "/v1/embeddings"]
        return cards
