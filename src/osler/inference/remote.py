"""An engine elsewhere: a client of servers that speak the OpenAI protocol, Osler's own or vLLM.

It talks to the one address that it was given. Redirections are not followed, and proxies and
passwords of the environment are not used: what is sent are patients' images and words.
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from time import perf_counter
from typing import Any

import httpx2

from osler.errors import PromptError, RemoteEngineError
from osler.inference.continuation import FinishReason, Generation, GenerationTimings, Piece
from osler.inference.remote_address import RemoteAddress
from osler.inference.remote_scores import ScoredAnswer, ScoredAnswerReader
from osler.inference.sampling import SamplingParams
from osler.inference.thought import ThoughtSplitter

_CONNECT_S = 10.0
_SILENCE_S = 900.0  # reading a long record may take a small machine minutes
_MOST_BYTES = 1 << 20
_QUOTE = 16

Json = dict[str, Any]


class RemoteEngine:
    """One server.

    Args:
        address: the only place that is talked to.
        transport: in the place of the network, for tests.
    """

    def __init__(
        self, address: RemoteAddress, *, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self.address = address
        headers = {"accept": "application/json, text/event-stream"}
        if address.token is not None:
            headers["authorization"] = f"Bearer {address.token}"
        self._client = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(_SILENCE_S, connect=_CONNECT_S),
            # A connection an answer, closed behind it: nothing is left for anybody to close.
            limits=httpx2.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def models(self) -> list[Json]:
        """The models that the server has, as it describes them; each has an "id".

        Raises:
            RemoteEngineError: the server is out of reach, or refuses.
        """
        with self._request("GET", "/models") as response:
            found = self._json(self._read(response))
        models = found.get("data") if isinstance(found, dict) else None
        if not isinstance(models, list) or not all(
            isinstance(model, dict) and isinstance(model.get("id"), str) for model in models
        ):
            raise RemoteEngineError(f"{self.address.base}: no list of models; is it an OpenAI API?")
        return models

    def stream(
        self, messages: Sequence[Mapping[str, Any]], params: SamplingParams, *, model: str
    ) -> Generator[Piece | Generation, None, None]:
        """Answer one prompt; closing the generator ends the connection, and so the work.

        Args:
            messages: in OpenAI's form, images as data URLs.
            params: how to choose tokens and when to stop. Fields that OpenAI does not have go by
                vLLM's names, and only where they are set.
            model: one of the server's.

        Returns:
            Pieces as they come, then the whole, without ids, as the protocol has none.

        Raises:
            PromptError: at once, where the protocol has no words for `params`.
            RemoteEngineError: while generating.
        """
        if params.logprobs is not None:
            raise PromptError("logprobs go by token ids, which an engine elsewhere does not tell")
        body = {"model": model, "messages": list(messages), **_sampling(params)}
        return self._events(body)

    def scored(
        self, messages: Sequence[Mapping[str, Any]], params: SamplingParams, *, model: str
    ) -> ScoredAnswer:
        """Answer one prompt, and tell of each token how probable it and others were.

        Args:
            messages: as `stream` takes them.
            params: likewise, with `logprobs`, of which a server may give fewer.
            model: one of the server's.

        Raises:
            RemoteEngineError: it fails, or gives no log-probabilities.
        """
        asked = {"logprobs": True, "top_logprobs": params.logprobs or 0}
        body = {"model": model, "messages": list(messages), **_sampling(params), **asked}
        answer = ScoredAnswerReader()
        with closing(self._chunks(body)) as chunks:
            for chunk in chunks:
                answer.read(chunk)
        try:
            return answer.whole()
        except ValueError as error:
            raise RemoteEngineError(f"{self.address.base}: {error}") from None

    def _events(self, body: Json) -> Generator[Piece | Generation, None, None]:
        answer = _Answer()
        with closing(self._chunks(body)) as chunks:
            for chunk in chunks:
                yield from answer.read(chunk)
        yield from answer.finish()
        if answer.finish_reason is None:
            raise RemoteEngineError(f"{self.address.base}: broke off before the answer's end")
        yield answer.generation(answer.finish_reason)

    def _chunks(self, body: Json) -> Generator[Json, None, None]:
        """What a server sends while it answers."""
        sent = _texts(body["messages"])
        with self._request("POST", "/chat/completions", sent, json=body) as response:
            for line in _lines(response):
                if line == "[DONE]":
                    break
                chunk = self._json(line.encode())
                if not isinstance(chunk, dict):
                    raise RemoteEngineError(f"{self.address.base}: sends what is no answer")
                if error := chunk.get("error"):
                    raise RemoteEngineError(f"{self.address.base}: failed{_said(error, sent)}")
                yield chunk

    @contextmanager
    def _request(
        self, method: str, path: str, sent: Sequence[str] = (), **body: Any
    ) -> Iterator[httpx2.Response]:
        """Ask, and say in one line what went wrong on the way."""
        base = self.address.base
        try:
            with self._client.stream(method, base + path, **body) as response:
                if response.status_code != 200:
                    raise self._refusal(response, sent)
                yield response
        except httpx2.TimeoutException:
            raise RemoteEngineError(f"{base}: no answer for too long") from None
        except httpx2.ConnectError as error:
            raise RemoteEngineError(f"{base}: out of reach ({_reason(error)})") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = type(error).__name__
            raise RemoteEngineError(f"{base}: the connection broke off ({reason})") from None

    def _read(self, response: httpx2.Response) -> bytes:
        """A body that is not a stream; of one that is far too long, the beginning."""
        data = bytearray()
        for part in response.iter_bytes():
            data += part
            if len(data) > _MOST_BYTES:
                break
        return bytes(data)

    def _refusal(self, response: httpx2.Response, sent: Sequence[str]) -> RemoteEngineError:
        status, base = response.status_code, self.address.base
        if response.is_redirect:
            return RemoteEngineError(f"{base}: redirects elsewhere, and Osler does not follow")
        if status in (401, 403):
            which = "needs a token" if self.address.token is None else "refuses the token"
            return RemoteEngineError(f"{base}: {which} ({status})")
        try:
            found = self._json(self._read(response))
        except RemoteEngineError:
            found = None
        error = found.get("error") if isinstance(found, dict) else None
        return RemoteEngineError(f"{base}: answers {status}{_said(error, sent)}")

    def _json(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            reason = "sends what is no JSON; is it an OpenAI API?"
            raise RemoteEngineError(f"{self.address.base}: {reason}") from None


class _Answer:
    """An answer as it comes."""

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self._splitter = ThoughtSplitter()  # for servers that do not part the thought themselves
        self._thought: list[str] = []
        self._text: list[str] = []
        self._usage: Json = {}
        self._start = perf_counter()
        self._first: float | None = None

    def read(self, chunk: Json) -> Iterator[Piece]:
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        choices = chunk.get("choices")
        if not choices or not isinstance(choices, list) or not isinstance(choices[0], dict):
            return
        delta = choices[0].get("delta")
        if isinstance(delta, dict):
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            yield from self._pieces(thought if isinstance(thought, str) else "", is_thought=True)
            if isinstance(content := delta.get("content"), str):
                split = self._splitter.push(content)
                yield from self._pieces(split.thought, is_thought=True)
                yield from self._pieces(split.answer, is_thought=False)
        if isinstance(reason := choices[0].get("finish_reason"), str):
            self.finish_reason = "length" if reason == "length" else "stop"

    def finish(self) -> Iterator[Piece]:
        split = self._splitter.finish()
        yield from self._pieces(split.thought, is_thought=True)
        yield from self._pieces(split.answer, is_thought=False)

    def generation(self, reason: FinishReason) -> Generation:
        end = perf_counter()
        first = end if self._first is None else self._first
        return Generation(
            index=0,
            text="".join(self._text),
            thought="".join(self._thought),
            ids=(),
            finish_reason=reason,
            timings=GenerationTimings(
                queue_s=0.0,
                image_encode_s=0.0,
                prefill_s=first - self._start,
                decode_s=end - first,
                prompt_tokens=_count(self._usage.get("prompt_tokens")),
                new_tokens=_count(self._usage.get("completion_tokens")),
            ),
        )

    def _pieces(self, text: str, *, is_thought: bool) -> Iterator[Piece]:
        if text:
            if self._first is None:
                self._first = perf_counter()
            (self._thought if is_thought else self._text).append(text)
            yield Piece(index=0, text=text, is_thought=is_thought)


def _sampling(params: SamplingParams) -> Json:
    """How to choose tokens, in the protocol's words."""
    usual = SamplingParams()
    body: Json = {
        "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    same_names = ("top_p", "top_k", "min_p", "repetition_penalty", "no_repeat_ngram_size", "seed")
    for name in same_names:
        if (value := getattr(params, name)) != getattr(usual, name):
            body[name] = value
    if params.stop:
        body["stop"] = list(params.stop)
    if params.schema is not None:
        schema = json.loads(params.schema) if isinstance(params.schema, str) else params.schema
        named = {"name": "answer", "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    if params.regex is not None:
        body["structured_outputs"] = {"regex": params.regex}
    return body


def _lines(response: httpx2.Response) -> Iterator[str]:
    """The data of server-sent events; every server of this protocol has one line an event."""
    for line in response.iter_lines():
        if line.startswith("data:"):
            yield line[len("data:") :].strip()


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _texts(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts that are sent."""
    texts = []
    for message in messages:
        content = message["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        texts += [part["text"] for part in parts if "text" in part]
    return texts


def _said(error: Any, sent: Sequence[str]) -> str:
    """A server's own reason, unless it quotes what was sent, as validators like to do."""
    words = error.get("message") if isinstance(error, dict) else error
    if not isinstance(words, str) or not words.strip():
        return ""
    line = " ".join(words.split())[:200]
    flat = [" ".join(text.split()) for text in sent]
    for start in range(max(len(line) - _QUOTE, 0) + 1):
        if any(line[start : start + _QUOTE] in text for text in flat):
            return ""
    return f": {line}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
