"""Rewards that need no judge: an answer and what is true, to a number.

All but the length guard lie from 0 to 1. An answer that cannot be read in the asked form earns
nothing, so that the form is learnt with the content.
"""

import json
import re
from collections.abc import Collection

from osler.evaluation.own_words import says_yes
from osler.evaluation.text_metrics import rouge_l, set_f1, token_f1

__all__ = [
    "choice_letter",
    "choice_reward",
    "json_reward",
    "label_reward",
    "length_guard",
    "rouge_l",
    "token_f1",
    "yes_no_reward",
]

_LETTERS = (
    re.compile(r"^\W*([A-Z])(?:[).:,]|\W*$)"),
    re.compile(r"\(([A-Z])\)"),
    re.compile(r"(?<![A-Za-z])([A-Z])\)"),
    re.compile(r"(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*([A-Z])\b"),
)


def choice_letter(answer: str) -> str | None:
    """The option that an answer names; None where it names none or several.

    >>> [choice_letter(said) for said in ("B) pneumonia.", "It is (C).", "A mass.", "A) or B)")]
    ['B', 'C', None, None]
    """
    named = {letter for pattern in _LETTERS for letter in pattern.findall(answer)}
    return named.pop() if len(named) == 1 else None


def choice_reward(answer: str, letter: str) -> float:
    """1 where the answer names this option and no other."""
    return float(choice_letter(answer) == letter)


def yes_no_reward(answer: str, is_yes: bool) -> float:
    """1 where the answer begins with the right one of yes and no."""
    return float(says_yes(answer) is is_yes)


def label_reward(answer: str, labels: Collection[str]) -> float:
    """F1 of the labels that an answer lists, parted by commas, semicolons, lines or "and".

    "None" and "no finding" list nothing. A long list of guesses earns little: precision counts.

    >>> label_reward("Effusion, cardiomegaly and edema.", ["edema", "effusion"])
    0.8
    """
    parts = (part.strip(" .\t-*") for part in re.split(r"[,;\n]|\band\b", answer.lower()))
    said = {part for part in parts if part not in ("", "none", "no finding")}
    return set_f1(said, {label.lower() for label in labels})


def json_reward(answer: str, required: Collection[str] = ()) -> float:
    """1 where the answer is a JSON object that has these fields; a Markdown fence is allowed."""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", answer, re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return 0.0
    return float(isinstance(found, dict) and found.keys() >= set(required))


def length_guard(tokens: int, most: int, margin: int) -> float:
    """What an answer loses by its length: 0 up to `most` - `margin`, then down to -1 at `most`.

    Args:
        tokens: of the answer.
        most: where it is cut off.
        margin: over how many tokens the loss grows.

    Source: DAPO (arXiv 2503.14476), equation 13.

    >>> [length_guard(tokens, 100, 20) for tokens in (80, 90, 100, 120)]
    [0.0, -0.5, -1.0, -1.0]
    """
    return max(-1.0, min(0.0, (most - margin - tokens) / margin))
