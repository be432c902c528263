"""The thought block never leaks into the answer, whole or streamed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osler.inference.thought import Split, ThoughtSplitter, split_thought

CASES = [
    ("No effusion.", "", "No effusion."),
    ("<unused94>thought\nlook<unused95>No effusion.", "look", "No effusion."),
    ("<unused94>thought\n\nlook\n<unused95>\nNo.", "\nlook\n", "\nNo."),
    ("<unused94>look<unused95>No.", "look", "No."),
    ("<unused94>thought\nlook and", "look and", ""),
    ("<unused94>thought\nlook<unused9", "look<unused9", ""),
    ("<unused94>thou", "", ""),
    ("<unused94>", "", ""),
    ("<unused94><unused95>Yes", "", "Yes"),
    ("<unused94>thoughts<unused95>Yes", "thoughts", "Yes"),
    (" <unused94>thought\na<unused95>b<unused94>thought\nc<unused95>d", "ac", " bd"),
    ("stray <unused95>close", "", "stray close"),
    ("a < b, <unused", "", "a < b, <unused"),
    ("<unused93>", "", "<unused93>"),
    ("", "", ""),
]


@pytest.mark.parametrize(("text", "thought", "answer"), CASES)
def test_whole_text(text: str, thought: str, answer: str) -> None:
    assert split_thought(text) == Split(thought, answer)


def streamed(pieces: list[str]) -> Split:
    splitter = ThoughtSplitter()
    parts = [*(splitter.push(piece) for piece in pieces), splitter.finish()]
    return Split("".join(p.thought for p in parts), "".join(p.answer for p in parts))


@pytest.mark.parametrize(("text", "thought", "answer"), CASES)
def test_one_character_at_a_time(text: str, thought: str, answer: str) -> None:
    assert streamed(list(text)) == Split(thought, answer)


@given(
    st.lists(
        st.sampled_from(
            ["<unused94>", "<unused95>", "thought\n", "thou", "<unused", "9", "4>", "x"]
        ),
        max_size=8,
    )
)
def test_cuts_do_not_matter(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert streamed(pieces) == streamed(list(text)) == split_thought(text)


def test_text_flows_while_the_thought_goes_on() -> None:
    splitter = ThoughtSplitter()
    assert splitter.push("<unused94>") == Split("", "")
    assert splitter.push("thought") == Split("", "")
    assert splitter.push("\nlook") == Split("look", "")
    assert splitter.push(" here<unused95>No") == Split(" here", "No")
    assert splitter.push("rmal") == Split("", "rmal")
