"""Questions and answers as training sequences.

A sequence knows which of its tokens are to be learnt: answers always, prompts only where the text
itself is the lesson.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, kw_only=True)
class TrainingSequence:
    """Token ids, and for each whether predicting it counts; `image` indexes a feature store."""

    ids: list[int]
    learn: list[bool]
    image: int | None = None


def conversation(
    encode: Encode,
    turns: Sequence[tuple[str, str]],
    *,
    bos: int,
    image: int | None = None,
    image_text: str = "",
    learn_prompts: bool = False,
) -> TrainingSequence:
    """Lay out turns in Gemma's template, the image before the first question.

    Args:
        encode: text with control tokens to ids, without a `<bos>`.
        turns: question and answer pairs.
        bos: id of `<bos>`.
        image: index of the image's features, or None for text only.
        image_text: what stands for an image in a prompt, soft tokens and all.
        learn_prompts: whether the questions are learnt too.

    Returns:
        The sequence; each answer is learnt with its `<end_of_turn>`.
    """
    ids, learn = [bos], [False]
    for index, (question, answer) in enumerate(turns):
        shown = image_text if index == 0 and image is not None else ""
        prompt = encode(
            f"<start_of_turn>user\n{shown}{question.strip()}<end_of_turn>\n<start_of_turn>model\n"
        )
        said = encode(f"{answer.strip()}<end_of_turn>")
        after = encode("\n")
        ids += prompt + said + after
        learn += [learn_prompts] * len(prompt) + [True] * len(said) + [learn_prompts] * len(after)
    return TrainingSequence(ids=ids, learn=learn, image=image)


def document(encode: Encode, text: str, *, bos: int, eos: int) -> TrainingSequence:
    """Plain text, all of it to be learnt."""
    ids = [bos, *encode(text.strip()), eos]
    return TrainingSequence(ids=ids, learn=[False] + [True] * (len(ids) - 1))
