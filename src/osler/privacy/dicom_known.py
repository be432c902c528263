"""Who a DICOM object is about, and what must not remain of it anywhere."""

from collections.abc import Iterator

from pydicom import DataElement, Dataset

from osler.ingest.dicom.attributes import MALFORMED
from osler.privacy.known import Known

# Of these the whole value is looked for in every text that stays.
_LITERALS = frozenset(
    """
    PatientID OtherPatientIDs AccessionNumber IssuerOfPatientID PatientAddress
    PatientTelephoneNumbers PatientTelecomInformation MedicalRecordLocator AdmissionID
    ServiceEpisodeID StudyID PlacerOrderNumberImagingServiceRequest
    FillerOrderNumberImagingServiceRequest RequestedProcedureID InstitutionName InstitutionAddress
    DeviceSerialNumber DetectorID StationName MilitaryRank PatientInsurancePlanCodeSequence
    RegionOfResidence PersonAddress PersonTelephoneNumbers PersonTelecomInformation
    ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers ClinicalTrialSubjectID
""".split()
)


def known_of(ds: Dataset) -> Known:
    """The names and numbers of a data set, wherever in it they stand."""
    names: list[str] = []
    literals: list[str] = []
    for element in _elements(ds):
        if element.VR == "PN":
            names += _strings(element)
        elif element.keyword in _LITERALS:
            literals += _strings(element)
    return Known(names, literals)


def identity_of(ds: Dataset) -> str:
    """What tells the patient apart from others: the patient ID, or what is there instead of one."""
    for keywords in (("PatientID",), ("PatientName", "PatientBirthDate"), ("StudyInstanceUID",)):
        found = " ".join(" ".join(_strings_of(ds, keyword)) for keyword in keywords).strip()
        if found:
            return found
    return ""


def _strings_of(ds: Dataset, keyword: str) -> list[str]:
    try:
        return _strings(ds[keyword]) if keyword in ds else []
    except MALFORMED:
        return []


def _strings(element: DataElement) -> list[str]:
    values = list(element.value) if element.VM > 1 else [element.value]
    return [text for each in values if each is not None and (text := str(each).strip())]


def _elements(ds: Dataset) -> Iterator[DataElement]:
    for tag in list(ds.keys()):
        if tag.is_private:
            continue
        try:
            element = ds[tag]
        except MALFORMED:
            continue
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _elements(item)
        else:
            yield element
