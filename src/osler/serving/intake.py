"""From a request's body to prompts and sampling: work for a thread, not for the event loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from osler.errors import PromptError
from osler.inference.sampling import SamplingParams
from osler.preprocess.processor import Prompt
from osler.serving.data_url import image_of_url
from osler.serving.failure import ApiError
from osler.serving.schemas import ChatBody, ChatMessage, CompletionBody, ContentPart, Sampled
from osler.serving.served import Served
from osler.serving.settings import ServerSettings

_FLOAT32_BYTES = 4
_CHANNELS = 3
MAX_CHOICES = 64

Hold = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A request that is ready for the engine.

    Attributes:
        choices: a prompt and its sampling for each answer asked for.
        tenant: whose it is; prompts share work only within one tenant.
        stream: whether to send the answers while they are made.
        include_usage: whether a stream ends with its token counts.
        prompts: how many different prompts there are.
    """

    choices: tuple[tuple[Prompt, SamplingParams], ...]
    tenant: str
    stream: bool
    include_usage: bool
    prompts: int


class Intake:
    """Reads requests for one server's model."""

    def __init__(self, served: Served, settings: ServerSettings) -> None:
        self._served = served
        self._max_new_tokens = settings.max_new_tokens
        self._max_choices = min(MAX_CHOICES, settings.max_requests)

    def chat(self, data: bytes, hold: Hold) -> Job:
        """Read the body of `/v1/chat/completions`.

        Args:
            data: the body.
            hold: told how many bytes the prepared images will take; may refuse.

        Raises:
            ValidationError, ApiError, InputError: what is wrong with it.
        """
        body = ChatBody.model_validate_json(data)
        self._check(body)
        messages = [
            _message(message, f"message {number}")
            for number, message in enumerate(body.messages, start=1)
        ]
        images = sum(part["type"] == "image" for message in messages for part in message["content"])
        if images and (side_px := self._served.image_size_px):
            hold(images * _CHANNELS * side_px**2 * _FLOAT32_BYTES)
        constraint = _response_format(body)
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        if body.top_logprobs and not body.logprobs:
            raise PromptError("top_logprobs needs logprobs to be true")
        params = self._params(body, body.max_completion_tokens, logprobs=logprobs, **constraint)
        return self._job(body, [self._served.processor(messages)], params)

    def completion(self, data: bytes, hold: Hold) -> Job:
        """Read the body of `/v1/completions`: prompts as they are, without a template.

        Args:
            data: the body.
            hold: not needed, as there are no images.

        Raises:
            ValidationError, ApiError, InputError: what is wrong with it.
        """
        body = CompletionBody.model_validate_json(data)
        self._check(body)
        params = self._params(body, None, logprobs=body.logprobs)
        return self._job(
            body, [Prompt(ids=ids, text=text) for ids, text in self._raw(body)], params
        )

    def _check(self, body: Sampled) -> None:
        check_model(body.model, self._served.name)
        body.refuse_unsupported()

    def _raw(self, body: CompletionBody) -> Iterator[tuple[list[int], str]]:
        tokenizer = self._served.processor.tokenizer
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if not prompts:
            raise PromptError("prompt: empty")
        if isinstance(prompts[0], int):
            prompts = [prompts]
        for prompt in prompts:
            if isinstance(prompt, str):
                ids = tokenizer.encode(prompt, add_bos=not prompt.startswith(tokenizer.bos))
                yield ids, prompt
            elif isinstance(prompt, list):
                yield prompt, ""

    def _params(self, body: Sampled, max_new_tokens: int | None, **special: Any) -> SamplingParams:
        if max_new_tokens is None:
            max_new_tokens = body.max_tokens
        if max_new_tokens is None:
            max_new_tokens = self._max_new_tokens
        stop = [body.stop] if isinstance(body.stop, str) else body.stop
        asked: dict[str, Any] = {
            "temperature": body.temperature,
            "top_k": None if body.top_k is None else max(body.top_k, 0),  # elsewhere -1 is "all"
            "top_p": body.top_p,
            "min_p": body.min_p,
            "repetition_penalty": body.repetition_penalty,
            "no_repeat_ngram_size": body.no_repeat_ngram_size,
            "seed": body.seed,
            "stop": None if stop is None else tuple(stop),
            **_structured_outputs(body),
        }
        if twice := [name for name in special if asked.get(name) is not None and special[name]]:
            raise PromptError(f"{twice[0]}: asked for twice, in different ways")
        asked |= {name: value for name, value in special.items() if value is not None}
        asked = {name: value for name, value in asked.items() if value is not None}
        return SamplingParams(max_new_tokens=min(max_new_tokens, self._max_new_tokens), **asked)

    def _job(self, body: Sampled, prompts: list[Prompt], params: SamplingParams) -> Job:
        count = body.n or 1
        if count * len(prompts) > self._max_choices:
            raise PromptError(f"more than {self._max_choices} answers in one request")
        # Each choice has random numbers of its own, and the first those of a request for one.
        seeded = [
            params if params.seed is None else replace(params, seed=(params.seed + number) % 2**63)
            for number in range(count)
        ]
        options = body.stream_options
        return Job(
            choices=tuple((prompt, one) for prompt in prompts for one in seeded),
            tenant=body.user or "",
            stream=bool(body.stream),
            include_usage=bool(options and options.include_usage),
            prompts=len(prompts),
        )


def check_model(asked: str, served: str | None) -> None:
    """Refuse a request for another model.

    Raises:
        ApiError: 404, as OpenAI's.
    """
    if asked != served:
        raise ApiError(
            404,
            f"there is no model {asked[:200]!r} for this here; /v1/models lists what there is",
            code="model_not_found",
            param="model",
        )


def _message(message: ChatMessage, where: str) -> dict[str, Any]:
    """A message in the Hugging Face form, its images as bytes."""
    role = "system" if message.role == "developer" else message.role
    if message.content is None:
        raise PromptError(f"{where}: no content")
    if isinstance(message.content, str):
        return {"role": role, "content": [{"type": "text", "text": message.content}]}
    parts = [
        _part(part, f"{where}, part {number}")
        for number, part in enumerate(message.content, start=1)
    ]
    return {"role": role, "content": parts}


def _part(part: ContentPart, where: str) -> dict[str, Any]:
    if part.type == "text" and part.text is not None:
        return {"type": "text", "text": part.text}
    if part.type == "image_url" and part.image_url is not None:
        url = part.image_url if isinstance(part.image_url, str) else part.image_url.url
        return {"type": "image", "image": image_of_url(url, where)}
    if part.type in ("text", "image_url"):
        raise PromptError(f"{where}: says {part.type!r} and has none")
    raise PromptError(f"{where}: of type {part.type[:64]!r}; 'text' and 'image_url' are taken")


def _response_format(body: ChatBody) -> dict[str, Any]:
    if body.response_format is None or body.response_format.type == "text":
        return {}
    if body.response_format.type == "json_object":
        return {"schema": {"type": "object"}}
    wanted = body.response_format.json_schema
    if wanted is None or wanted.schema_ is None:
        raise PromptError("response_format: json_schema has no schema")
    return {"schema": wanted.schema_}


def _structured_outputs(body: Sampled) -> dict[str, Any]:
    if body.structured_outputs is None:
        return {}
    return {
        "schema": body.structured_outputs.json_schema,
        "regex": body.structured_outputs.regex,
    }
