"""Stop strings end an answer wherever the stream is cut."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osler.inference.stop import StopMatcher


def streamed(pieces: list[str], stop: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stop)
    text = "".join(matcher.push(piece) for piece in pieces) + matcher.finish()
    return text, matcher.stopped


@pytest.mark.parametrize(
    ("pieces", "stop", "text", "stopped"),
    [
        (["one ", "two"], [], "one two", False),
        (["one END two"], ["END"], "one ", True),
        (["one E", "N", "D two"], ["END"], "one ", True),
        (["one E", "N", "O"], ["END"], "one ENO", False),
        (["one EN"], ["END"], "one EN", False),
        (["EEND"], ["END"], "E", True),
        (["abcd"], ["abcd", "bc"], "a", True),
        (["abc"], ["c", "bc", "abc"], "", True),
        (["ab", "ab", "ac"], ["abac"], "ab", True),
        (["END"], ["END"], "", True),
        (["a\n", "\n", "b"], ["\n\n"], "a", True),
    ],
)
def test_what_is_given_out(pieces: list[str], stop: list[str], text: str, stopped: bool) -> None:
    assert streamed(pieces, stop) == (text, stopped)


def test_text_is_held_no_longer_than_it_must_be() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("the E") == "the "
    assert matcher.push("d") == "Ed"
    assert matcher.push("EN") == ""
    assert matcher.push("D after") == ""
    assert matcher.stopped
    assert matcher.push("more") == ""
    assert matcher.finish() == ""


@given(st.text("ab", max_size=9), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_cuts_do_not_matter(text: str, stop: list[str]) -> None:
    whole = streamed([text], stop)
    assert streamed(list(text), stop) == whole
    for first, second in product(range(len(text) + 1), repeat=2):
        if first <= second:
            assert streamed([text[:first], text[first:second], text[second:]], stop) == whole
    assert text.startswith(whole[0])
    assert whole[1] == any(mark in text for mark in stop)
    assert not any(mark in whole[0] for mark in stop)
