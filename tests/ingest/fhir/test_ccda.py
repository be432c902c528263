"""C-CDA documents: converted, cited the same way each time, and refused where they are a trap."""

import sys

import pytest

from osler.errors import InputError, UnreadableFileError, UnsupportedError
from osler.ingest.fhir.documents import resources_of_bytes
from osler.ingest.fhir.records import Condition, LeftOut, Note, Observation, Timeline
from osler.ingest.fhir.timeline import choose_patient, timeline_of
from osler.testing.ccda import CCDA


def read(data: bytes) -> Timeline:
    found = resources_of_bytes(data, "x.xml")
    return timeline_of(found, choose_patient(found, None))


def test_a_document_becomes_a_timeline() -> None:
    found = read(CCDA)
    assert found.patient is not None
    assert found.patient.born is not None
    assert (found.patient.sex, found.patient.born.text) == ("female", "1961-04-02")
    (asthma,) = (one for one in found.events if isinstance(one, Condition))
    assert (asthma.what.text, asthma.is_active) == ("Asthma", True)
    (hb,) = (one for one in found.events if isinstance(one, Observation))
    assert hb.start is not None
    assert hb.start.text == "2020-03-01T10:15:00-05:00"
    assert hb.measurement.quantity is not None
    assert (hb.measurement.quantity.value, hb.measurement.flag) == ("9.1", "low")
    (note,) = (one for one in found.events if isinstance(one, Note))
    assert "Asthma since 2010" in note.attachments[0].text
    assert LeftOut("Organization", "not part of a timeline", 1) in found.left_out


def test_sources_are_the_same_each_time_and_differ_between_documents() -> None:
    once, again = read(CCDA), read(CCDA)
    assert once == again
    other = read(CCDA.replace(b"Asthma since 2010", b"Asthma since 2011"))
    assert not {one.source for one in once.events} & {one.source for one in other.events}


def test_what_is_not_converted_is_counted() -> None:
    odd = b'<entry><act classCode="ACT" moodCode="EVN"><templateId root="1.2.3.4.5"/></act></entry>'
    found = read(CCDA.replace(b"</section>", odd + b"</section>", 1))
    assert LeftOut("C-CDA 1.2.3.4.5", "not part of a timeline", 1) in found.left_out


def test_what_fails_is_counted_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    # Without a custodian there can be no Composition; the library goes on without it.
    found = read(b'<ClinicalDocument xmlns="urn:hl7-org:v3"/>')
    assert LeftOut("C-CDA part that failed", "not part of a timeline", 1) in found.left_out
    assert capfd.readouterr() == ("", "")


def test_other_encodings() -> None:
    text = CCDA.decode().replace("UTF-8", "ISO-8859-1").replace("since 2010", "häufig")
    note = next(one for one in read(text.encode("latin-1")).events if isinstance(one, Note))
    assert "Asthma häufig" in note.attachments[0].text


ENTITY = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'
EXTERNAL = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (ENTITY, UnreadableFileError, "with a DTD, with entities"),
        (EXTERNAL, UnreadableFileError, "with a DTD, with entities"),
        (b"<!DOCTYPE x><x/>", UnreadableFileError, "with a DTD, with entities"),
        (b"<a>" * 101 + b"</a>" * 101, UnreadableFileError, "more than 100 deep"),
        (CCDA[:-20], UnreadableFileError, "damaged or truncated"),
        (b"<a></b>", UnreadableFileError, "damaged or truncated"),
        (b"<?xml version='1.0' encoding='odd'?><a/>", UnreadableFileError, "damaged"),
        (b"<html/>", UnsupportedError, "no C-CDA"),
        (b'<Bundle xmlns="http://hl7.org/fhir"/>', UnsupportedError, "FHIR in XML is not read"),
        (CCDA.replace(b'"PQ"', b'"ZZ"'), UnsupportedError, "not converted from C-CDA"),
    ],
)
def test_traps_and_other_xml(data: bytes, kind: type[InputError], reason: str) -> None:
    with pytest.raises(kind, match=f"^x.xml: .*{reason}") as error:
        read(data)
    assert "\n" not in str(error.value)
    assert "Nobody" not in str(error.value)


def test_without_the_library_an_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ccda_to_fhir", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'osler\[ccda\]'"):
        read(CCDA)
