"""Streamed text: whole characters only, and joined the same as decoding at once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osler.inference.detokenize import Detokenizer
from osler.preprocess.tokenizer import Tokenizer
from osler.testing.dummy import BYTE_PIECES, PIECES

EURO = tuple(f"<0x{byte:02X}>" for byte in "€".encode())


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.finish()]


@pytest.mark.parametrize(
    "text",
    [
        "The lungs are clear.",
        "  two  spaces \n\n\n and newlines ",
        "naïve café: 5 µm, ≥ 3 €",
        "大動脈 🙂🙂 ok 👩‍⚕️",
        "e\u0301 combining",
    ],
)
def test_pieces_join_to_the_text_and_split_no_character(tokenizer: Tokenizer, text: str) -> None:
    pieces = streamed(tokenizer, tokenizer.encode(text, add_bos=False))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_in_bytes_comes_out_whole_with_what_follows(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.id_of(piece) for piece in [*EURO, "T", *EURO]]
    assert streamed(tokenizer, ids) == ["", "", "", "€T", "", "", "", "€"]


def test_a_character_cut_off_at_the_end_is_marked(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.id_of(piece) for piece in ["T", *EURO[:2]]]
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids) == "T\ufffd\ufffd"


def test_special_tokens_give_no_text_and_do_not_break_a_run_of_bytes(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.id_of(piece) for piece in ["<bos>", *EURO[:1], "<end_of_turn>", *EURO[1:]]]
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids) == "€"


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES) | st.sampled_from(BYTE_PIECES + EURO), max_size=30))
def test_any_ids_join_to_what_decoding_at_once_gives(
    tokenizer: Tokenizer, pieces: list[str]
) -> None:
    ids = [tokenizer.id_of(piece) for piece in pieces]
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)
