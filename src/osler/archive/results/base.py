"""What all results have: the patient and study of their sources, a series, who made them."""

import datetime
from importlib.metadata import version
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from osler.archive.results.attributes import PATIENT, STUDY
from osler.archive.results.draft import Draft
from osler.archive.results.source import Sources, other_studies, same_study

# Higher than a scanner counts, so that results come after its series.
_FIRST_SERIES_NUMBER = 9000
_LONG_STRING = 64

TITLE = Code("18748-4", "LN", "Diagnostic imaging report")


def new_result(
    draft: Draft, sources: Sources, *, sop_class: UID, modality: str, series: int, name: str
) -> Dataset:
    """A data set with the modules that all results have.

    Args:
        draft: what the model said.
        sources: what it saw.
        sop_class: of the result.
        modality: of its series.
        series: its series' place among the results of one draft.
        name: what a viewer's list shows.

    Source: PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.12.1, C.12.2.
    """
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    for keyword in (*PATIENT, *STUDY):
        if keyword in sources.current:
            ds.add(sources.current[keyword])
    ds.Modality = modality
    ds.SeriesInstanceUID = generate_uid(prefix=None)
    ds.SeriesNumber = _FIRST_SERIES_NUMBER + series
    ds.SeriesDescription = name
    ds.InstanceNumber = 1
    now = datetime.datetime.now()
    ds.InstanceCreationDate = ds.ContentDate = ds.SeriesDate = now.strftime("%Y%m%d")
    ds.InstanceCreationTime = ds.ContentTime = ds.SeriesTime = now.strftime("%H%M%S")
    ds.Manufacturer = "Osler"
    ds.ManufacturerModelName = draft.model.replace("\\", "/")[:_LONG_STRING]
    ds.SoftwareVersions = [version("osler"), draft.version.replace("\\", "/")[:_LONG_STRING]]
    return ds


def refer_to_sources(ds: Dataset, sources: Sources) -> None:
    """Say which instances of which series and studies a result refers to (PS3.3 C.12.2)."""
    ds.ReferencedSeriesSequence = same_study(sources.here)
    if sources.elsewhere:
        ds.StudiesContainingOtherReferencedInstancesSequence = other_studies(sources.elsewhere)


def coded(code: Any) -> Dataset:
    """An item of a code sequence (PS3.3 table 8.8-1)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def code_sequence(code: Any) -> DicomSequence:
    """A sequence of one code."""
    return DicomSequence([coded(code)])
