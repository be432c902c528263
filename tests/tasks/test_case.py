"""A record and images in one question: what is joined, what fits, what an answer names."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import osler
from osler.cli import main
from osler.errors import PromptError, RecordError, UnreadableFileError, UnsupportedError
from osler.tasks.answer import Answer, Timings
from osler.tasks.assistant import Assistant
from osler.tasks.case import REMOTE_BUDGET, case_messages, cited_lines, read_case, record_use
from osler.testing.dicom import make_dicom
from osler.testing.fhir import PATIENT, bundle, lab, ndjson, resource

HERE, PRIOR, UNKNOWN = "2.25.1", "2.25.2", "2.25.3"


def film(study: str, date: str) -> bytes:
    return make_dicom(
        np.arange(256, dtype=np.uint16).reshape(16, 16),
        Modality="DX",
        StudyDate=date,
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.1",
        SOPInstanceUID=f"{study}.1.1",
    )


def imaging(id: str, uid: str, date: str) -> dict[str, Any]:
    return resource("ImagingStudy", id, started=date, identifier=[{"value": f"urn:oid:{uid}"}])


@pytest.fixture
def case_folder(tmp_path: Path) -> Path:
    """As a portal hands it out: a bundle, an export and films, and what lies beside them."""
    folder = tmp_path / "case"
    (folder / "images" / "a").mkdir(parents=True)
    (folder / "images" / "a" / "1.dcm").write_bytes(film(HERE, "20240301"))
    (folder / "images" / "2.dcm").write_bytes(film(PRIOR, "20190105"))
    (folder / "images" / "sidecar.json").write_text('{"EchoTime": 0.03}')
    (folder / "record.json").write_bytes(
        bundle(PATIENT, imaging("i1", HERE, "2024"), imaging("i2", UNKNOWN, "2020"))
    )
    (folder / "labs.ndjson").write_bytes(
        ndjson(*(lab(f"o{n}", f"20{n}-03-01", n) for n in range(10, 20)))
    )
    return folder


@pytest.fixture(scope="module")
def model(medgemma_folder: Path) -> Assistant:
    return osler.load(medgemma_folder)


def texts(messages: list[dict[str, Any]]) -> list[str]:
    (message,) = messages
    return [item.get("text", "image") for item in message["content"]]


def answer(text: str) -> Answer:
    return Answer(
        text=text,
        thought="",
        tokens=(),
        new_tokens=0,
        prompt_tokens=0,
        finish_reason="stop",
        timings=Timings(prepare_s=0, image_encode_s=0, prefill_s=0, decode_s=0),
        notice="",
        model="",
        version="1.5",
        input_sha256=(),
    )


def test_a_folder_of_both_is_joined(case_folder: Path, model: Assistant) -> None:
    case = read_case([case_folder])
    assert case.timeline is not None
    assert case.join is not None
    assert len(case.timeline.events) == 12  # of both files
    assert [study.source for study in case.join.joined] == ["ImagingStudy/i1"]
    assert (case.join.missing, case.join.others) == (("ImagingStudy/i2",), 1)
    record, *rest = texts(case_messages(case, "What has changed?", model)[0])
    assert "Current medications" not in record
    assert "19 g/dL [Observation/o19]" in record
    assert record.endswith("Prior study:")
    assert rest == [
        *("image", "Current study [ImagingStudy/i1]:", "image", "What has changed?"),
    ]


def test_only_images_and_only_a_record(case_folder: Path, model: Assistant) -> None:
    images = read_case([case_folder / "images"])
    assert (images.timeline, images.join) == (None, None)
    assert case_messages(images, "?", model)[1] is None
    alone = read_case([case_folder / "record.json", case_folder / "labs.ndjson"])
    assert alone.content.items == []
    assert alone.join is None
    (text,) = texts(case_messages(alone, "How high?", model)[0])
    assert text.endswith("\n\nHow high?")


def test_the_record_gets_the_room_that_is_left(case_folder: Path, model: Assistant) -> None:
    many = [lab(f"m{n}", f"{1000 + n}-01-01", 13) for n in range(1000)]
    (case_folder / "many.ndjson").write_bytes(ndjson(*many))
    case = read_case([case_folder])
    messages, rendering = case_messages(case, "?", model, max_new_tokens=100)
    assert rendering is not None
    assert rendering.dropped[0].kind == "result"
    length = model.processor.length(messages)
    context = model.engine.context_tokens
    assert context - 300 < length + 100 <= context
    assert "Observation/o19" in rendering.text  # the latest stays
    answered = model.chat(messages, max_new_tokens=1)
    use = record_use(case, rendering, answered)
    assert 12 < len(use.sources) < 1012
    assert len(use.sources) + sum(kind.count for kind in use.dropped) == 1000 + 12 + 1


def test_a_budget_and_one_that_holds_nothing(case_folder: Path, model: Assistant) -> None:
    case = read_case([case_folder])
    _, rendering = case_messages(case, "?", model, budget=150)
    assert rendering is not None
    assert len(model.processor.tokenizer.spell(rendering.text)) <= 150
    with pytest.raises(PromptError, match="room for 3 tokens beside images, question and answer"):
        case_messages(case, "?", model, budget=3)
    with pytest.raises(PromptError, match="room for 0 tokens"):
        case_messages(case, "?", model, max_new_tokens=10_000)


def test_an_engine_elsewhere_does_not_tell_its_room(case_folder: Path) -> None:
    many = [lab(f"m{n}", f"{1000 + n}-01-01", 13) for n in range(1000)]
    (case_folder / "many.ndjson").write_bytes(ndjson(*many))
    case = read_case([case_folder])
    elsewhere: Any = object()
    _, rendering = case_messages(case, "?", elsewhere)
    assert rendering is not None
    assert 0.5 * REMOTE_BUDGET < len(rendering.text) < 4 * REMOTE_BUDGET
    assert rendering.dropped


def test_what_an_answer_names(case_folder: Path, model: Assistant) -> None:
    case = read_case([case_folder])
    _, rendering = case_messages(case, "?", model)
    assert rendering is not None
    named = answer("High [Observation/o19], as before [Observation/o18; no], [ImagingStudy/x].")
    use = record_use(case, rendering, named)
    assert use.cited == ("Observation/o19",)
    assert use.unknown == ("ImagingStudy/x",)
    assert {"Observation/o10", "ImagingStudy/i1", "Patient/p1"} <= set(use.sources)
    assert [line.split()[0] for line in cited_lines(rendering, use)] == ["2019-03-01"]
    shortened = replace(rendering, sources={"Observation/o1": "Observation/o19"})
    assert record_use(case, shortened, answer("[Observation/o1:3]")).cited == ("Observation/o19",)


def test_several_patients_need_a_choice(tmp_path: Path) -> None:
    two = tmp_path / "two.json"
    two.write_bytes(bundle(PATIENT, {**PATIENT, "id": "p2"}, lab("o1", "2020", 9)))
    with pytest.raises(RecordError, match=r"two\.json: holds 2 patients"):
        read_case([two])
    case = read_case([two], patient="p1")
    assert case.timeline is not None
    assert len(case.timeline.events) == 1


def test_what_holds_neither(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no images and no record in this folder"):
        read_case([tmp_path])
    page = tmp_path / "page.html"
    page.write_text("<html></html>")
    with pytest.raises(UnsupportedError, match=r"page\.html: no C-CDA"):
        read_case([page])


def test_on_the_command_line(
    case_folder: Path, medgemma_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(medgemma_folder), "--max-new-tokens", "4", "--budget", "400"]
    assert main(["ask", str(case_folder), "What has changed?", *options, "--json"]) == 0
    streams = capsys.readouterr()
    printed = json.loads(streams.out)
    assert len(printed["input_sha256"]) == 2
    assert "Observation/o19" in printed["record"]["sources"]
    assert printed["record"]["dropped"][0]["kind"] == "result"
    assert printed["record"]["images"]["joined"][0]["source"] == "ImagingStudy/i1"
    notes = streams.err.splitlines()
    assert "osler: note: 13 of 13 resources are on the timeline" in notes
    assert "osler: note: ImagingStudy/i1: 1 file" in notes
    assert any(line.startswith("osler: note: left out of the record") for line in notes)
    assert main(["ask", "Hello?", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"] is None
