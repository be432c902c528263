"""What results take over of an image's attributes; runs in the child process."""

import struct
import zlib
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue

from osler.archive.instance import Instance, is_uid
from osler.errors import DicomError, UnreadableFileError

# What results take over (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2), and what only pictures do.
PATIENT = """
    PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex
    PatientIdentityRemoved DeidentificationMethod
""".split()
STUDY = """
    StudyInstanceUID StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber
    StudyDescription PatientAge
""".split()
IMAGE = """
    Laterality LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
""".split()
_OWN = "SpecificCharacterSet SOPClassUID SOPInstanceUID SeriesInstanceUID".split()
_MALFORMED = (
    BytesLengthException,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# By keyword, each value as it is written.
Attributes = dict[str, tuple[str, ...]]


def parse_attributes(path: Path, name: str) -> tuple[Instance, Attributes]:
    """Read which instance a file is, and what results take over of it.

    Args:
        path: the file.
        name: what to call it in messages.

    Raises:
        UnreadableFileError: not a DICOM file.
        DicomError: without its UIDs, or malformed.
        OSError: it cannot be read.
    """
    wanted = [*PATIENT, *STUDY, *IMAGE]
    try:
        ds = dcmread(path, stop_before_pixels=True, specific_tags=[*wanted, *_OWN])
        ds.decode()
        instance = _instance(ds)
        return instance, {key: _written(ds[key].value) for key in wanted if key in ds}
    except InvalidDicomError:
        reason = "not a DICOM file, so there is no study to write to"
        raise UnreadableFileError(f"{name}: {reason}") from None
    except DicomError as error:
        raise DicomError(f"{name}: {error}") from None
    except _MALFORMED:
        raise DicomError(f"{name}: the patient's or study's attributes are malformed") from None


def _written(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, MultiValue) else (str(value),)


def _instance(ds: Dataset) -> Instance:
    found = Instance(
        study_uid=str(ds.StudyInstanceUID),
        series_uid=str(ds.get("SeriesInstanceUID", "")),
        sop_uid=str(ds.get("SOPInstanceUID", "")),
        sop_class_uid=str(ds.get("SOPClassUID", "")),
    )
    if not is_uid(found.sop_class_uid):
        raise DicomError("the SOP class is missing or malformed")
    return found
