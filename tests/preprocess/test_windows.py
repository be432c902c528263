"""The CT windows, as published and not as public code has them."""

import pytest

from osler.errors import PromptError
from osler.preprocess.windows import ct_windows_hu


def test_version_1_windows_are_width_and_level_of_the_report():
    assert ct_windows_hu("1") == ((-1225, 1025), (-135, 215), (0, 80))


def test_version_1_5_windows_are_low_and_high_of_the_report():
    assert ct_windows_hu("1.5") == ((-1024, 1024), (-135, 215), (0, 80))


def test_the_green_window_is_not_the_one_of_public_code():
    # (175, 80) was read as level and width there: 135 to 215, which loses all soft tissue.
    assert all(ct_windows_hu(version)[1] != (135, 215) for version in ("1", "1.5"))


def test_an_unknown_version_is_refused():
    with pytest.raises(PromptError, match="version is '2'"):
        ct_windows_hu("2")
