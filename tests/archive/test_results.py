"""Results: what they say, what they refer to, whom they belong to, and that the judge agrees."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import Dataset, dcmread, uid

import osler
from osler.archive.results.document import make_pdf
from osler.archive.results.draft import Draft
from osler.archive.results.write import write_results
from osler.errors import DicomError, InputError
from tests.archive.studies import OTHER_STUDY, STUDY, make_instance

TEXT = "The lungs are clear.\nThe heart is enlarged – ½ of the chest, ≥ 50 % → check."
NOTICE = "A draft for a professional to check; not a medical device."


def write_answer(path: Path, *sources: Path, **changes: object) -> Path:
    digests = [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    answer = {
        "text": TEXT,
        "notice": NOTICE,
        "model": "medgemma-4b-it",
        "version": "1.5",
        "input_sha256": digests,
        "tokens": [1, 2],
        **changes,
    }
    path.write_text(json.dumps(answer))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "current.dcm"
    path.write_bytes(
        make_instance(1, PatientName="Ünbekannt^Nobody", SpecificCharacterSet="ISO_IR 100")
    )
    return path


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    path = tmp_path / "seen.png"
    rgb = np.random.default_rng(0).integers(0, 256, (31, 33, 3), dtype=np.uint8)
    Picture.fromarray(rgb).save(path)
    return path


@pytest.fixture
def results(source: Path, seen: Path, tmp_path: Path) -> dict[str, Dataset]:
    answer = write_answer(tmp_path / "answer.json", source)
    written = write_results(answer, [source], tmp_path / "out", seen=[seen, seen])
    assert written.study_uid == STUDY
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in written.files
    )
    return {path.name: dcmread(path) for path in written.files}


def texts(ds: Dataset) -> list[str]:
    """Every value of text in a data set."""
    found = []
    for element in ds.iterall():
        if element.VR in ("LO", "LT", "ST", "SH", "UT", "UC"):
            found.append(str(element.value))
    return found


def references(ds: Dataset) -> set[tuple[str, str]]:
    return {
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for sequence in ds.iterall()
        if sequence.VR == "SQ"
        for item in sequence.value
        if "ReferencedSOPInstanceUID" in item
    }


def test_all_belong_to_the_study_of_their_source(results: dict[str, Dataset], source: Path) -> None:
    held = dcmread(source)
    for ds in results.values():
        for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate"):
            assert ds[keyword].value == held[keyword].value
        assert ds.SeriesInstanceUID != held.SeriesInstanceUID
        assert references(ds) == {(uid.CTImageStorage, held.SOPInstanceUID)}
        assert (ds.Manufacturer, ds.ManufacturerModelName) == ("Osler", "medgemma-4b-it")
        assert list(ds.SoftwareVersions) == [osler.__version__, "1.5"]
    uids = [ds.SOPInstanceUID for ds in results.values()]
    assert len(set(uids)) == 4
    assert results["seen-1.dcm"].SeriesInstanceUID == results["seen-2.dcm"].SeriesInstanceUID
    assert len({ds.SeriesInstanceUID for ds in results.values()}) == 3


def test_the_report_says_what_the_model_said(results: dict[str, Dataset], source: Path) -> None:
    ds = results["report.dcm"]
    assert ds.SOPClassUID == uid.BasicTextSRStorage
    assert (ds.PreliminaryFlag, ds.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    said = texts(ds)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    for wanted in (TEXT, NOTICE, "medgemma-4b-it", "1.5", f"input SHA-256: {digest}"):
        assert wanted in said
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (STUDY, f"{STUDY}.1")


def test_the_notice_is_said_once(results: dict[str, Dataset]) -> None:
    for name in ("report.dcm", "seen-1.dcm"):
        assert sum(text.count(NOTICE) for text in texts(results[name])) == 1
    draft = Draft(text=TEXT, notice=NOTICE, model="m", version="1", input_sha256=("0" * 64,))
    assert results["report-pdf.dcm"].EncapsulatedDocument.startswith(b"%PDF-")
    assert words_of(draft).count(NOTICE) == 1


def words_of(draft: Draft) -> str:
    """What a PDF says, by the texts that are drawn."""
    from reportlab.platypus import Paragraph

    drawn: list[str] = []
    plain = Paragraph.draw

    def draw(paragraph: Paragraph) -> None:
        drawn.append(paragraph.getPlainText())
        plain(paragraph)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Paragraph, "draw", draw)
        make_pdf(draft)
    return "\n".join(drawn)


def test_the_pdf_says_what_the_model_said() -> None:
    long = f"{TEXT}\n\n<b>5 < 6 & 中</b>\n" * 100
    draft = Draft(text=long, notice=NOTICE, model="m", version="1", input_sha256=("0" * 64,))
    said = words_of(draft)
    assert said.count("The heart is enlarged – ½ of the chest, ≥ 50 % [U+2192] check.") == 100
    assert said.count("<b>5 < 6 & [U+4E2D]</b>") == 100
    assert draft.provenance in said
    assert make_pdf(draft).count(b"/Type /Page\n") > 3


def test_the_captures_are_what_was_seen(results: dict[str, Dataset], seen: Path) -> None:
    with Picture.open(seen) as picture:
        rgb = np.asarray(picture)
    for number in (1, 2):
        ds = results[f"seen-{number}.dcm"]
        np.testing.assert_array_equal(ds.pixel_array, rgb)
        assert ds.InstanceNumber == number
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (dicom3tools)")
def test_the_judge_finds_no_error(
    results: dict[str, Dataset], radiograph: Path, seen: Path, tmp_path: Path
) -> None:
    answer = write_answer(tmp_path / "real.json", radiograph)
    write_results(answer, [radiograph], tmp_path / "real", seen=[seen])
    paths = [*(tmp_path / "out").iterdir(), *(tmp_path / "real").iterdir()]
    assert len(paths) == 7
    for path in paths:
        judged = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        said = judged.stdout + judged.stderr
        assert "Error" not in said, said
        assert any(kind in said for kind in ("BasicTextSR", "EncapsulatedPDF", "SCImage")), said


def test_a_prior_is_evidence_from_elsewhere(source: Path, tmp_path: Path) -> None:
    prior = tmp_path / "prior.dcm"
    prior.write_bytes(
        make_instance(
            7,
            study=OTHER_STUDY,
            StudyDate="20200101",
            PatientName="Ünbekannt^Nobody",
            SpecificCharacterSet="ISO_IR 100",
        )
    )
    answer = write_answer(tmp_path / "answer.json", prior, source)
    written = write_results(answer, [tmp_path], tmp_path / "out")
    assert written.study_uid == STUDY
    report = dcmread(tmp_path / "out" / "report.dcm")
    (other,) = report.PertinentOtherEvidenceSequence
    assert other.StudyInstanceUID == OTHER_STUDY
    (library,) = [
        item
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Image Library"
    ]
    assert [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in library.ContentSequence
    ] == [
        f"{OTHER_STUDY}.1.7",
        f"{STUDY}.1.1",
    ]
    document = dcmread(tmp_path / "out" / "report-pdf.dcm")
    (other,) = document.StudiesContainingOtherReferencedInstancesSequence
    assert other.StudyInstanceUID == OTHER_STUDY


def test_only_what_the_model_saw_is_referred_to(source: Path, tmp_path: Path) -> None:
    (tmp_path / "unseen.dcm").write_bytes(make_instance(5))
    answer = write_answer(tmp_path / "answer.json", source)
    write_results(answer, [tmp_path], tmp_path / "out")
    assert references(dcmread(tmp_path / "out" / "report.dcm")) == {
        (uid.CTImageStorage, f"{STUDY}.1.1")
    }


def test_an_answer_never_goes_to_another_patient(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.dcm"
    other.write_bytes(make_instance(2, patient="P2"))
    answer = write_answer(tmp_path / "answer.json", source)
    with pytest.raises(InputError, match="1 of 1 files that the answer was made from"):
        write_results(answer, [other], tmp_path / "out")
    both = write_answer(tmp_path / "both.json", source, other)
    with pytest.raises(InputError, match="more than one patient") as error:
        write_results(both, [source, other], tmp_path / "out")
    assert "P2" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_sources_that_are_none(seen: Path, tmp_path: Path) -> None:
    answer = write_answer(tmp_path / "answer.json", seen)
    with pytest.raises(InputError, match=r"seen\.png: not a DICOM file, so there is no study"):
        write_results(answer, [seen], tmp_path / "out")
    with pytest.raises(InputError, match=r"gone\.dcm: there is no such file"):
        write_results(answer, [tmp_path / "gone.dcm"], tmp_path / "out")
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(make_instance(1, StudyInstanceUID=""))
    with pytest.raises(DicomError, match=r"bare\.dcm: .*UIDs are missing"):
        write_results(write_answer(answer, bare), [bare], tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": ""}, "text: .*empty"),
        ({"notice": " \x00"}, "notice: .*empty"),
        ({"input_sha256": []}, "belongs to no study"),
        ({"model": 7}, "model: "),
    ],
)
def test_what_is_no_answer(
    source: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    answer = write_answer(tmp_path / "answer.json", source, **changes)
    with pytest.raises(InputError, match=rf"answer\.json: no answer of .*{reason}"):
        write_results(answer, [source], tmp_path / "out")


def test_a_file_that_is_no_answer(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no answer of"):
        write_results(source, [source], tmp_path / "out")
    with pytest.raises(InputError, match=r"gone\.json: No such file"):
        write_results(tmp_path / "gone.json", [source], tmp_path / "out")
    answer = write_answer(tmp_path / "answer.json", source)
    with pytest.raises(InputError, match=r"answer\.json: neither DICOM nor"):
        write_results(answer, [source], tmp_path / "out", seen=[answer])


def test_control_characters_do_not_get_in(source: Path, tmp_path: Path) -> None:
    answer = write_answer(tmp_path / "answer.json", source, text="a\x00b\x1b[31mc")
    write_results(answer, [source], tmp_path / "out")
    assert "ab[31mc" in texts(dcmread(tmp_path / "out" / "report.dcm"))
