"""Where the library cannot be used, Osler runs on torch and says why, once."""

import os
import subprocess
import sys

ASK = """
import logging
logging.basicConfig(format="%(message)s")
import osler
from osler.native.library import library
for _ in range(3):
    loaded = library()
print(loaded and loaded.kernels)
"""


def _ask(**variables: str) -> tuple[str, list[str]]:
    """What the library says of itself, and the lines of the log."""
    env = {name: value for name, value in os.environ.items() if name != "OSLER_NATIVE_KERNELS"}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=env | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), done.stderr.splitlines()


def test_nothing_is_said_where_it_is_there(native):
    kernels, said = _ask(OSLER_NATIVE_KERNELS=native.kernels)
    assert kernels == native.kernels
    assert said == []


def test_a_missing_library_is_said_once():
    kernels, said = _ask(OSLER_NATIVE_LIBRARY="/nowhere/_osler.so")
    assert kernels == "None"
    assert said == [
        "osler runs on torch, without its native engine: "
        "_osler.so was not built, as where there is no C compiler"
    ]


def test_a_foreign_library_is_said_once(tmp_path):
    foreign = tmp_path / "_osler.so"
    foreign.write_bytes(b"not a library")
    kernels, said = _ask(OSLER_NATIVE_LIBRARY=str(foreign))
    assert kernels == "None"
    assert len(said) == 1
    assert "cannot be loaded" in said[0]


def test_it_can_be_switched_off_in_silence():
    assert _ask(OSLER_NATIVE="0") == ("None", [])


def test_kernels_are_chosen_by_name():
    assert _ask(OSLER_NATIVE_KERNELS="portable") == ("portable", [])


def test_kernels_that_are_not_there_are_said():
    kernels, said = _ask(OSLER_NATIVE_KERNELS="quantum")
    assert kernels == "None"
    assert said == [
        "osler runs on torch, without its native engine: "
        "there are no kernels 'quantum' for this processor"
    ]
