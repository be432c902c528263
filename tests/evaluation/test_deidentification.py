"""Planted identifiers are gone, and the measurement would see if they were not."""

import subprocess
import sys

import pytest

from osler.evaluation.deidentification.measure import make_corpus, measure
from osler.evaluation.deidentification.search import broken_references, remaining


def test_what_is_planted_is_gone() -> None:
    corpus = make_corpus(1, pictures=(), records=1)
    found = measure(corpus, peers=False)
    assert found.planted > 900
    assert found.removed >= 0.995, [(plant.place, plant.value) for plant in found.left]
    assert found.broken_references == 0
    assert found.refused == 0


def test_the_search_finds_what_was_not_removed() -> None:
    corpus = make_corpus(1, pictures=(), records=1)
    plants = [plant for plant in corpus.plants if plant.place != "file name"]
    assert remaining(plants, corpus.files) == plants


def test_broken_references_are_counted() -> None:
    files = make_corpus(1, pictures=(), records=0).dicom
    assert broken_references(files.values(), files.values()) == 0
    without_a_target = [data for name, data in files.items() if name != "header.dcm"]
    assert broken_references(files.values(), without_a_target) == 1


@pytest.mark.slow
def test_the_whole_measurement() -> None:
    command = [sys.executable, "-m", "osler.evaluation.deidentification", "--at-least", "0.995"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broken references: 0" in done.stdout
    for tool in ("dicognito", "deid"):
        assert f"of DICOM, {tool} leaves" in done.stdout
