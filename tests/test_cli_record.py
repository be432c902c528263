"""`osler record` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from osler import cli_options
from osler.cli import main
from osler.preprocess.record.rendering import STYLES
from osler.testing.fhir import PATIENT, bundle, coded, lab, ndjson, resource


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A year of one patient's haemoglobin, and a claim."""
    limits = {"low": {"value": 12, "unit": "g/dL"}, "high": {"value": 16, "unit": "g/dL"}}
    values = (13.1, 12.4, 9.1, 7.9, 12.9)
    path = tmp_path / "patient.json"
    path.write_bytes(
        bundle(
            PATIENT,
            resource("Condition", "c1", code=coded("Anemia"), onsetDateTime="2020-03"),
            *(
                lab(f"o{n}", f"2020-0{n}-01T10:15:00Z", value, referenceRange=[limits])
                for n, value in enumerate(values, start=1)
            ),
            {"resourceType": "Claim", "id": "x", "patient": {"reference": "Patient/p1"}},
        )
    )
    return path


def test_it_prints_the_timeline_and_counts_the_rest(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", str(record)]) == 0
    streams = capsys.readouterr()
    lines = streams.out.splitlines()
    assert lines[0].endswith("[Patient/p1]")
    assert lines[2].endswith("12.9 g/dL [Observation/o5]")
    assert streams.err.splitlines() == [
        "7 of 8 resources are on the timeline",
        "left out: 1 Claim, not part of a timeline",
    ]


def test_the_styles_are_those_of_the_rendering() -> None:
    assert cli_options.STYLES == STYLES


@pytest.mark.parametrize("style", STYLES)
def test_styles(style: str, record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", str(record), "--style", style, "--short-ids"]) == 0
    assert "7.9" in capsys.readouterr().out


def test_json_has_the_record_and_its_text(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", str(record), "--json", "--style", "problems"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["record"]["patient"]["born"]["text"] == "1961-04-02"
    assert [event["type"] for event in printed["record"]["events"]].count("Observation") == 5
    assert printed["record"]["left_out"][0]["type"] == "Claim"
    assert "Active problems:" in printed["text"]
    assert printed["sources"]["Observation/o1"] == "Observation/o1"
    assert printed["dropped"] == []


def test_a_budget_in_the_tokens_of_a_model(
    record: Path, medgemma_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from osler.tasks.record import token_counter

    arguments = ["record", str(record), "--budget", "200", "--model", str(medgemma_folder)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert token_counter(medgemma_folder)(text) <= 200
    assert "Left out for want of room:" in text
    assert "Anemia" in text


def test_a_chart_is_a_picture_with_the_values_in_it(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hb.png"
    assert main(["record", str(record), "--chart", "hemoglobin", "--out", str(out)]) == 0
    assert "wrote" in capsys.readouterr().err
    with Picture.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[1] > 1000
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 100)  # values that are flagged
    blue = (pixels[..., 2] > 100) & (pixels[..., 0] < 60)
    green = (pixels == (0xDF, 0xEE, 0xE0)).all(axis=2)  # what is normal
    assert red.any()
    assert blue.any()
    assert green.mean() > 0.1
    assert {path.name for path in tmp_path.iterdir()} == {"hb.png", "patient.json"}


def test_a_chart_is_named_after_its_test(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["record", str(record), "--chart", "718-7"]) == 0
    assert (tmp_path / "718-7.png").exists()


def test_dates_of_any_precision_are_drawn(tmp_path: Path) -> None:
    dates = ("0001-01-01", "2019", "2020-02", "2020-03-01", "2020-03-01T10:15:60+14:00", "9999")
    labs = [lab(f"o{n}", date, n) for n, date in enumerate(dates)]
    (tmp_path / "a.json").write_bytes(bundle(PATIENT, *labs))
    out = tmp_path / "a.png"
    assert main(["record", str(tmp_path / "a.json"), "--chart", "718-7", "--out", str(out)]) == 0
    assert out.exists()


def test_charts_that_cannot_be_drawn(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", str(record), "--chart", "potassium", "--out", f"{tmp_path}/k.png"]) == 1
    assert "no test of that name or code" in capsys.readouterr().err
    assert not (tmp_path / "k.png").exists()


def test_patients_are_listed_and_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = lab("o2", "2020", 2) | {"subject": {"reference": "Patient/p2"}}
    (tmp_path / "all.ndjson").write_bytes(
        ndjson(PATIENT, PATIENT | {"id": "p2"}, lab("o1", "2020", 1), other)
    )
    assert main(["record", str(tmp_path), "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["p1  1 resources", "p2  1 resources"]
    assert main(["record", str(tmp_path)]) == 1
    assert "holds 2 patients: choose one" in capsys.readouterr().err
    assert main(["record", str(tmp_path), "--patient", "p2"]) == 0
    assert "[Observation/o2]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.json", "--budget", "0"], "--budget: must be at least 1"),
        (["a.json", "--test", "x"], "--test goes with --style tables"),
        (["a.json", "--out", "x.png"], "--out goes with --chart"),
        (["a.json", "--chart", "x", "--out", "x.jpg"], "must end in .png"),
        (["a.json", "--since", "2020"], "go with a server's URL"),
        (["https://fhir.example"], "a server needs --patient"),
        (["https://fhir.example", "--patient", "1", "--key", "k"], "go together"),
        (["a.json", "--style", "oldest"], "invalid choice"),
    ],
)
def test_wrong_usage(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["record", *arguments])
    assert stop.value.code == 2
    assert reason in capsys.readouterr().err


def test_files_that_are_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("Jane Doe")
    assert main(["record", str(tmp_path / "x.json")]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"osler: {tmp_path / 'x.json'}: neither FHIR in JSON nor")
    assert "Jane" not in errors
