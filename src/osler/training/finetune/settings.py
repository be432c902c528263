"""How a fine-tuning is done, and what is known of it afterwards."""

from dataclasses import dataclass, field
from typing import Literal

from osler.errors import PromptError
from osler.models.lora import ALL_LINEAR, LoraConfig
from osler.training.distributed import Parallel

Method = Literal["lora", "qlora", "full"]
METHODS: tuple[Method, ...] = ("lora", "qlora", "full")

# At the width of MedGemma 4B; a matrix of another width learns at a rate in inverse proportion.
# Source: Tensor Programs V (arXiv 2203.03466), table 3, for Adam.
_RATE_WIDTH = 2560
_RATES: dict[Method, float] = {"lora": 2e-4, "qlora": 2e-4, "full": 1e-5}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of a fine-tuning.

    Attributes:
        method: adapters ("lora"), adapters over matrices in 4 bits ("qlora"), or all weights
            ("full").
        epochs: how often each example is met.
        batch_size: examples that go through the model together.
        accumulate: such batches before each step of the optimiser.
        learning_rate: at its peak; None for one that goes with method and width.
        lora: how adapters are built.
        target_modules: which layers get one: `lora.ALL_LINEAR`, or last names such as "q_proj".
        question: what is asked about images with labels; None for one that names all labels.
        most_tokens: of an example, those of its images included.
        recompute: compute activations twice rather than keep them: half as fast again, far less
            memory.
        checkpoint_every: steps between two states that an interrupted run can go on from.
        parallel: layout over several ranks: "ddp"; or, for the method "full", "fsdp2", where no
            rank holds all of the model.
        seed: of first weights, orders and dropout.

    Raises:
        PromptError: a number that makes no sense.
    """

    method: Method = "lora"
    epochs: int = 5
    batch_size: int = 4
    accumulate: int = 1
    learning_rate: float | None = None
    lora: LoraConfig = field(default_factory=LoraConfig)
    target_modules: str | tuple[str, ...] = ALL_LINEAR
    question: str | None = None
    most_tokens: int = 2048
    recompute: bool = False
    checkpoint_every: int = 500
    parallel: Parallel = "ddp"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise PromptError(f"method is {self.method!r}; it must be one of {', '.join(METHODS)}")
        for name in ("epochs", "batch_size", "accumulate", "most_tokens", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise PromptError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.parallel == "fsdp2" and self.method != "full":
            raise PromptError("adapters are small: fsdp2 goes with the method full")

    def rate(self, hidden_size: int) -> float:
        """The peak learning rate for a decoder of some width.

        >>> FinetuneConfig(method="lora").rate(2560)
        0.0002
        """
        return self.learning_rate or _RATES[self.method] * _RATE_WIDTH / hidden_size


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What became of a fine-tuning; written beside its result as `finetune.json`.

    Attributes:
        folder: of the result.
        method: as asked for.
        base: the model it began with.
        data_sha256: of the examples and their images.
        examples: how many.
        labels: that were told apart; empty where the answers are free.
        trained_parameters: how many learnt.
        steps: of the optimiser.
        learning_rate: its peak.
        before: the figures on the validation data at the start; empty without such data.
        after: the same at the end.
        validation_examples: how many these are.
    """

    folder: str
    method: Method
    base: str
    data_sha256: str
    examples: int
    labels: tuple[str, ...]
    trained_parameters: int
    steps: int
    learning_rate: float
    before: dict[str, float]
    after: dict[str, float]
    validation_examples: int
