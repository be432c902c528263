"""How much two texts, or two sets of labels, have in common."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence


def set_f1(predicted: Iterable[Hashable], true: Iterable[Hashable]) -> float:
    """Harmonic mean of precision and recall of a set of labels, 0 to 1; two empty sets agree.

    >>> set_f1({"effusion", "mass"}, {"effusion"})
    0.6666666666666666
    """
    said, wanted = set(predicted), set(true)
    if not said and not wanted:
        return 1.0
    return 2 * len(said & wanted) / (len(said) + len(wanted))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, 0 to 1, without articles and punctuation.

    Source: SQuAD (arXiv 1606.05250), section 6.1.

    >>> token_f1("The left lung.", "left lower lung")
    0.8
    """
    said, wanted = (Counter(_plain_words(text)) for text in (answer, reference))
    common = (said & wanted).total()
    if not said or not wanted:
        return float(said == wanted)
    return 2 * common / (said.total() + wanted.total())


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L: harmonic mean of precision and recall of the longest common subsequence, 0 to 1.

    Words are runs of a to z and digits in lower case, not stemmed.

    Source: Lin, "ROUGE: a package for automatic evaluation of summaries", 2004, section 3, with
    precision and recall weighed alike.

    >>> rouge_l("No pleural effusion is seen.", "There is no effusion.")
    0.4444444444444444
    """
    said, wanted = (re.findall("[a-z0-9]+", text.lower()) for text in (answer, reference))
    if not said or not wanted:
        return 0.0
    return 2 * _longest_common(said, wanted) / (len(said) + len(wanted))


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, against in enumerate(other, start=1):
            above = lengths[place]
            lengths[place] = diagonal + 1 if word == against else max(above, lengths[place - 1])
            diagonal = above
    return lengths[-1]


def _plain_words(text: str) -> list[str]:
    words = re.sub(r"[^\w\s]", "", text.lower()).split()
    return [word for word in words if word not in ("a", "an", "the")]
