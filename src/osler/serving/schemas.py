"""The bodies that clients send, in OpenAI's form.

A field that is here is obeyed. Of the others, those without influence on an answer are passed over,
and all others are refused rather than ignored: who asks for tools or penalties should not believe
to have had them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from osler.errors import PromptError

# Bookkeeping of OpenAI's own platform, and hints that change no answer.
_PASSED_OVER = frozenset(
    "cache_salt metadata parallel_tool_calls prompt_cache_key prompt_cache_retention "
    "safety_identifier service_tier store".split()
)
# Fields that are not supported, and the values that ask for nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "suffix": ("",),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
}


class Body(BaseModel):
    """What all requests have in common."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    user: str | None = None

    def refuse_unsupported(self) -> None:
        """Refuse what would not be obeyed.

        Raises:
            PromptError: names the field.
        """
        for name, value in (self.model_extra or {}).items():
            if value is None or name in _PASSED_OVER or value in _NEUTRAL.get(name, ()):
                continue
            raise PromptError(f"{name[:64]!r} is not supported by this server")


class StreamOptions(BaseModel):
    """What a stream says besides its text."""

    model_config = ConfigDict(strict=True)

    include_usage: bool | None = None


class StructuredOutputs(BaseModel):
    """A constraint in vLLM's form, for what OpenAI's has no words."""

    model_config = ConfigDict(extra="forbid", strict=True)

    json_schema: Annotated[dict[str, Any] | str | None, Field(alias="json")] = None
    regex: str | None = None


class Sampled(Body):
    """How to choose tokens, and how to send them."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    structured_outputs: StructuredOutputs | None = None


class ImageUrl(BaseModel):
    """An image's address."""

    url: str


class ContentPart(BaseModel):
    """A text or an image of a message."""

    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None


class ChatMessage(BaseModel):
    """One message; what else it bears (a name, an old thought) is passed over."""

    role: str
    content: str | list[ContentPart] | None = None


class JsonSchema(BaseModel):
    """A named schema; a name and strictness are for the client."""

    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class ResponseFormat(BaseModel):
    """What form the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatBody(Sampled):
    """The body of `/v1/chat/completions`."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None


class CompletionBody(Sampled):
    """The body of `/v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class EmbeddingBody(Body):
    """The body of `/v1/embeddings`."""

    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
