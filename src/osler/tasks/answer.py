"""What the models give back: drafts and classifications, with where they came from."""

from dataclasses import dataclass

NOT_A_DEVICE = "A draft for a professional to check; not a medical device."


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Where the seconds of one answer went.

    Attributes:
        prepare_s: reading the images and building the prompt.
        image_encode_s: embedding the images.
        prefill_s: reading the prompt and choosing the first token.
        decode_s: all tokens after the first.
    """

    prepare_s: float
    image_encode_s: float
    prefill_s: float
    decode_s: float

    @property
    def first_token_s(self) -> float:
        """From the question to the first token."""
        return self.prepare_s + self.image_encode_s + self.prefill_s

    @property
    def total_s(self) -> float:
        """From the question to the last token."""
        return self.first_token_s + self.decode_s


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One generated draft.

    Attributes:
        text: the answer without its thought and without special tokens.
        thought: what a thinking model wrote before it answered; "" where it wrote nothing.
        tokens: the generated ids, those of the thought and of the end included; an engine
            elsewhere does not tell them.
        new_tokens: how many ids were generated.
        prompt_tokens: how many ids the prompt had, those of its images included.
        finish_reason: "stop" at the model's own end or a stop string, "length" where it was cut
            off at `max_new_tokens` or the model's context, "cancelled" by the caller.
        timings: where the time went.
        notice: what a reader of the draft must know about the model; part of `str(answer)`.
        model: the name that the model was loaded by.
        version: the MedGemma version that the images were prepared for, "1" or "1.5".
        input_sha256: hex digests of the image files' bytes, in reading order.
    """

    text: str
    thought: str
    tokens: tuple[int, ...]
    new_tokens: int
    prompt_tokens: int
    finish_reason: str
    timings: Timings
    notice: str
    model: str
    version: str
    input_sha256: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.text}\n\n{self.notice}"


@dataclass(frozen=True, kw_only=True)
class Classification:
    """How well each label fits one image, compared with the other labels.

    Attributes:
        source: the image's file name.
        probabilities: label to probability, 0 to 1, in the order asked; they sum to 1.
        notice: what a reader must know about the model.

    >>> probabilities = {"normal": 0.2, "pneumonia": 0.8}
    >>> Classification(source="a.png", probabilities=probabilities, notice="").label
    'pneumonia'
    """

    source: str
    probabilities: dict[str, float]
    notice: str

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.probabilities, key=self.probabilities.__getitem__)
