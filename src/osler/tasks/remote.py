"""A MedGemma that answers elsewhere: what `osler.load(..., engine=URL)` gives."""

import base64
import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import httpx2
import PIL.Image

from osler.errors import ModelNotFoundError, PromptError
from osler.inference.remote import RemoteEngine
from osler.inference.remote_address import RemoteAddress
from osler.inference.remote_scores import ScoredAnswer
from osler.inference.sampling import SamplingParams
from osler.preprocess.chat import Message, read_turns
from osler.preprocess.image_settings import ImageSettings
from osler.preprocess.pixels import PixelMaker
from osler.preprocess.processor import Prompt
from osler.preprocess.sources import as_image
from osler.preprocess.squaring import Display, Squaring
from osler.preprocess.tokenizer import check_unicode
from osler.preprocess.windows import ct_windows_hu
from osler.tasks.answer import NOT_A_DEVICE
from osler.tasks.chat_model import ChatModel, Events, Messages

# Of every released MedGemma; a server of Osler's says what its model has.
_SIDE_PX = 896
_VERSION = "1.5"

# What Gemma's tokenizer turns into control tokens wherever it stands in a text. Osler spells it in
# letters; of another server that is not known, and a record must not be able to speak in turns.
_CONTROL = re.compile(
    "<(?:start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token|bos|eos|pad|unk"
    "|mask|unused[0-9]+)>"
)


class RemoteAssistant(ChatModel):
    """A MedGemma behind an OpenAI API.

    Images are read, windowed and squared here, and travel as PNG pictures of the size that the
    model takes, so that DICOM works with every server and each sees what a local model would.

    Attributes:
        engine: the server.
        name: the model's name there.
        notice: what its answers say about it.
    """

    def __init__(self, engine: RemoteEngine, card: Mapping[str, Any], version: str | None) -> None:
        """Most callers want `connect`.

        Args:
            engine: the server.
            card: what it says of the model.
            version: as `osler.load` takes it.
        """
        self.engine = engine
        self.name = str(card["id"])
        self._is_osler = card.get("owned_by") == "osler"
        notice = card.get("osler_notice")
        self.notice = notice if isinstance(notice, str) else NOT_A_DEVICE
        said = card.get("osler_version")
        self._version = version or (said if isinstance(said, str) else _VERSION)
        ct_windows_hu(self._version)  # refuses an unknown one
        side_px = card.get("osler_image_size_px")
        settings = ImageSettings(side_px=side_px if isinstance(side_px, int) else _SIDE_PX)
        self._pixel_maker = PixelMaker(settings, self._version)

    @property
    def version(self) -> str:
        """See `ChatModel.version`."""
        return self._version

    def scored(self, messages: Messages, **sampling: Any) -> ScoredAnswer:
        """Answer messages, and tell of each token how probable it and others were.

        Args:
            messages: as `chat` takes them.
            **sampling: likewise, with `logprobs`.

        Raises:
            InputError: as `chat`.
            RemoteEngineError: the server fails, or gives no log-probabilities.
        """
        read_turns(messages)
        wire = [self._message(message, "pad", []) for message in messages]
        return self.engine.scored(wire, SamplingParams(**sampling), model=self.name)

    def _begin(
        self,
        messages: Messages,
        params: SamplingParams,
        *,
        squaring: Squaring,
        pan_and_scan: bool,
    ) -> tuple[Prompt, Events]:
        if pan_and_scan:
            raise PromptError("pan_and_scan works with a model on this machine, not with an engine")
        read_turns(messages)  # refuses what a local model would
        digests: list[str] = []
        wire = [self._message(message, squaring, digests) for message in messages]
        events = self.engine.stream(wire, params, model=self.name)
        return Prompt(ids=[], input_sha256=tuple(digests)), events

    def _message(self, message: Message, squaring: Squaring, digests: list[str]) -> dict[str, Any]:
        """A message in OpenAI's form."""
        role = "assistant" if message["role"] == "model" else message["role"]
        content = message["content"]
        if isinstance(content, str):
            return {"role": role, "content": self._text(content)}
        parts: list[dict[str, Any]] = []
        for part in content:
            if part["type"] == "text":
                parts.append({"type": "text", "text": self._text(part["text"])})
                continue
            image = as_image(part["image"])
            digests.append(image.sha256)
            (seen,) = self._pixel_maker.squares(image, squaring=squaring, pan_and_scan=False)
            parts.append({"type": "image_url", "image_url": {"url": _data_url(seen)}})
        return {"role": role, "content": parts}

    def _text(self, text: str) -> str:
        if not self._is_osler and (control := _CONTROL.search(text)):
            raise PromptError(
                f"a text holds {control.group()}, which that server may take for a control token"
            )
        return check_unicode(text)


def connect(
    address: RemoteAddress,
    name: str | None = None,
    *,
    version: str | None = None,
    transport: httpx2.BaseTransport | None = None,
) -> RemoteAssistant:
    """See `osler.load`.

    Raises:
        RemoteEngineError: the server is out of reach, or refuses.
        ModelNotFoundError: it has no model of that name, or several and none was named.
    """
    engine = RemoteEngine(address, transport=transport)
    cards = {card["id"]: card for card in engine.models() if _answers(card)}
    listed = ", ".join(sorted(cards)) or "none"
    if name is None:
        if len(cards) != 1:
            raise ModelNotFoundError(f"{address.base}: name one of its models: {listed}")
        name = next(iter(cards))
    if name not in cards:
        raise ModelNotFoundError(f"{address.base}: no model {name!r}; it has {listed}")
    return RemoteAssistant(engine, cards[name], version)


def _answers(card: Mapping[str, Any]) -> bool:
    """Whether a model answers messages; Osler's server lists its encoder, too."""
    endpoints = card.get("osler_endpoints")
    return not isinstance(endpoints, list) or "/v1/chat/completions" in endpoints


def _data_url(seen: Display) -> str:
    png = BytesIO()
    PIL.Image.fromarray(seen).save(png, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
