"""What answers messages, wherever it runs: the face that local and remote models share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from osler.errors import GenerationCancelledError, PromptError
from osler.inference.continuation import Generation, Piece
from osler.inference.sampling import SamplingParams
from osler.preprocess.processor import Prompt
from osler.preprocess.slices import MAX_SLICES
from osler.preprocess.slides import AT_10X, SlideView
from osler.preprocess.sources import ImageSource
from osler.preprocess.squaring import Squaring
from osler.tasks.answer import Answer, Timings
from osler.tasks.content import question_messages, read_content

Messages = Sequence[Mapping[str, Any]]
Events = Generator[Piece | Generation, None, None]


class AnswerStream(Iterator[str]):
    """An answer in the making: iterate for the pieces of its text, then take `answer`.

    The pieces joined are `answer.text`. Closing the stream ends the work at the next token.

    Attributes:
        prompt: what the model was given; of a remote model, which makes ids and pixels of its own,
            only the images' digests.
    """

    def __init__(
        self,
        prompt: Prompt,
        events: Events,
        finish: Callable[[Generation], Answer],
        on_thought: Callable[[str], object] | None,
    ) -> None:
        self.prompt = prompt
        self._events = events
        self._finish = finish
        self._on_thought = on_thought
        self._answer: Answer | None = None

    def __next__(self) -> str:
        for event in self._events:
            if isinstance(event, Generation):
                self._answer = self._finish(event)
            elif not event.is_thought:
                return event.text
            elif self._on_thought is not None:
                self._on_thought(event.text)
        raise StopIteration

    def close(self) -> None:
        """Stop generating; what came until then stays valid."""
        self._events.close()

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has come to its end; generates what is left of it.

        Raises:
            GenerationCancelledError: the stream was closed before its end.
        """
        for _ in self:
            pass
        if self._answer is None:
            raise GenerationCancelledError("the stream was closed before the answer's end")
        return self._answer


class ChatModel(ABC):
    """A model that answers messages; made by `osler.load`.

    Attributes:
        name: what it was loaded by.
        notice: what its answers say about it.
    """

    name: str
    notice: str

    @property
    @abstractmethod
    def version(self) -> str:
        """The MedGemma version that images are prepared for, "1" or "1.5"."""

    @abstractmethod
    def _begin(
        self,
        messages: Messages,
        params: SamplingParams,
        *,
        squaring: Squaring,
        pan_and_scan: bool,
    ) -> tuple[Prompt, Events]:
        """Prepare messages, and begin to answer when the first event is asked for.

        Raises:
            InputError: an image that cannot be read, or messages that make no prompt.
        """

    def ask(
        self,
        question: str,
        images: Sequence[ImageSource] = (),
        *,
        max_slices: int = MAX_SLICES,
        slides: SlideView = AT_10X,
        system: str | None = None,
        squaring: Squaring = "pad",
        pan_and_scan: bool = False,
        **sampling: Any,
    ) -> Answer:
        """Ask one question.

        Args:
            question: what to ask.
            images: paths of pictures, DICOM objects, NIfTI files, whole slides, folders or zips of
                them; PIL images, uint8 RGB arrays `(H, W, 3)`, or `Image` records. They stand
                before the question, a prior study before the current one.
            max_slices: of all volumes and clips together.
            slides: how whole slides are looked at.
            system: a system message.
            squaring: "pad" to a square with zeros, as MedGemma was trained, or "stretch".
            pan_and_scan: add crops of images that are far from square.
            **sampling: fields of `SamplingParams`: max_new_tokens=200, temperature=0.0, seed=None
                and so on.

        Raises:
            InputError: an image that cannot be read, or a prompt that the model cannot take.
        """
        return self.stream(
            question,
            images,
            max_slices=max_slices,
            slides=slides,
            system=system,
            squaring=squaring,
            pan_and_scan=pan_and_scan,
            **sampling,
        ).answer

    def chat(
        self,
        messages: Messages,
        *,
        squaring: Squaring = "pad",
        pan_and_scan: bool = False,
        **sampling: Any,
    ) -> Answer:
        """Answer the last of several messages in the Hugging Face form.

        Args:
            messages: `{"role": "user", "content": [{"type": "image", "image": path}, {"type":
                "text", "text": "..."}]}` and so on, of "system", "user" and "assistant".
            squaring: as `ask` takes it.
            pan_and_scan: as `ask` takes it.
            **sampling: as `ask` takes them.

        Raises:
            InputError: an image that cannot be read, or messages that make no prompt.
        """
        return self.stream(
            messages, squaring=squaring, pan_and_scan=pan_and_scan, **sampling
        ).answer

    def stream(
        self,
        question: str | Messages,
        images: Sequence[ImageSource] = (),
        *,
        max_slices: int = MAX_SLICES,
        slides: SlideView = AT_10X,
        system: str | None = None,
        squaring: Squaring = "pad",
        pan_and_scan: bool = False,
        on_thought: Callable[[str], object] | None = None,
        **sampling: Any,
    ) -> AnswerStream:
        """Answer as it is written.

        Args:
            question: what to ask, or messages as `chat` takes them.
            images: as `ask` takes them; messages bring their own.
            max_slices: as `ask` takes it.
            slides: as `ask` takes it.
            system: a system message; messages bring their own.
            squaring: as `ask` takes it.
            pan_and_scan: as `ask` takes it.
            on_thought: called with the pieces of a thinking model's thought.
            **sampling: as `ask` takes them.

        Returns:
            An iterator of pieces of text, never half a character, which has the whole `answer`.

        Raises:
            InputError: at once, as `ask` and `chat`.
        """
        start = perf_counter()
        params = SamplingParams(**sampling)
        messages: Messages
        if isinstance(question, str):
            content = read_content(images, max_slices=max_slices, slides=slides)
            messages = question_messages(question, content.items, system)
        elif images or system is not None:
            raise PromptError("messages bring their own images and system message")
        else:
            messages = question
        prompt, events = self._begin(messages, params, squaring=squaring, pan_and_scan=pan_and_scan)
        prepare_s = perf_counter() - start
        finish = partial(self._answer, prompt, prepare_s)
        return AnswerStream(prompt, events, finish, on_thought)

    def _answer(self, prompt: Prompt, prepare_s: float, generation: Generation) -> Answer:
        timings = generation.timings
        return Answer(
            text=generation.text,
            thought=generation.thought,
            tokens=generation.ids,
            new_tokens=timings.new_tokens,
            prompt_tokens=timings.prompt_tokens,
            finish_reason=generation.finish_reason,
            timings=Timings(
                prepare_s=prepare_s,
                image_encode_s=timings.image_encode_s,
                prefill_s=timings.prefill_s,
                decode_s=timings.decode_s,
            ),
            notice=self.notice,
            model=self.name,
            version=self.version,
            input_sha256=prompt.input_sha256,
        )
