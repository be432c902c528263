"""A DICOM file as a whole: read, cleaned, written anew, read again."""

from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset, dcmread, dcmwrite, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames

from osler.errors import DicomError, UnsupportedError
from osler.ingest.dicom.attributes import MALFORMED, value_of
from osler.ingest.dicom.pixel_header import read_pixel_header
from osler.privacy.actions import Actions
from osler.privacy.codestream_comments import without_comments
from osler.privacy.dicom_attributes import AttributeCleaner
from osler.privacy.dicom_known import identity_of, known_of
from osler.privacy.dicom_pixels import clean_pixels
from osler.privacy.free_text import TextCleaner
from osler.privacy.known import Known
from osler.privacy.profile import Profile
from osler.privacy.pseudonyms import Pseudonyms

_PIXEL_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
_TEMPORAL = {"none": "REMOVED", "modified": "MODIFIED", "full": "UNMODIFIED"}
_NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)


@dataclass(frozen=True, kw_only=True)
class CleanObject:
    """A DICOM file without whom it is about.

    Attributes:
        data: the file.
        place: where it belongs: patient, study, series, instance, all of them pseudonyms.
        known: the names and numbers of the file as it was, for texts that came with it.
    """

    data: bytes
    place: tuple[str, str, str, str]
    known: Known


def clean_dicom(
    data: bytes, profile: Profile, pseudonyms: Pseudonyms, actions: Actions
) -> CleanObject:
    """De-identify a DICOM file.

    Raises:
        DicomError: malformed, truncated, a DICOMDIR, or pixels that cannot be decoded.
        UnsupportedError: a document inside an object, or pixels of a coding that is not read.

    Source: PS3.15 annex E.
    """
    ds, syntax = _read(data)
    _check_whole(ds, syntax)
    known, identity = known_of(ds), identity_of(ds)
    if profile.clean_pixels:
        syntax = clean_pixels(ds, syntax, actions)
    if syntax.is_encapsulated and "PixelData" in ds:
        _drop_comments(ds, actions)
    text = TextCleaner(
        known=known,
        retain_dates=profile.retain_dates,
        shift_days=pseudonyms.shift_days(identity),
    )
    AttributeCleaner(profile, pseudonyms, identity, text, actions).clean(ds)
    patient = pseudonyms.patient(identity)
    ds.PatientName = ds.PatientID = patient
    _say_so(ds, profile)
    return CleanObject(
        data=_written(ds, syntax),
        place=(
            patient,
            str(value_of(ds, "StudyInstanceUID") or "no-study"),
            str(value_of(ds, "SeriesInstanceUID") or "no-series"),
            str(ds.SOPInstanceUID),
        ),
        known=known,
    )


def _read(data: bytes) -> tuple[Dataset, uid.UID]:
    try:
        ds = dcmread(BytesIO(data), force=True)
        meta, encoding = ds.file_meta, ds.original_encoding
        has_pixels = "PixelData" in ds
        if "DirectoryRecordSequence" in ds:
            raise DicomError("a DICOMDIR: it lists files by their old names; make a new one")
        if "EncapsulatedDocument" in ds:
            raise UnsupportedError("a document inside a DICOM object, which cannot be cleaned")
        if "LABEL" in _image_type(ds) or value_of(ds, "SpecimenLabelInImage") == "YES":
            raise UnsupportedError("a picture of a slide's label, which may name the patient")
        if not value_of(ds, "SOPClassUID") or not value_of(ds, "SOPInstanceUID"):
            raise DicomError("SOPClassUID or SOPInstanceUID is missing")
        is_lost = not has_pixels and any(tag in data for tag in _PIXEL_TAGS)
        if is_lost and "Rows" in ds:
            raise DicomError("the pixel data is truncated")
    except MALFORMED:
        raise DicomError("the DICOM structure is broken or truncated") from None
    named = meta.get("TransferSyntaxUID")
    if named:
        return ds, uid.UID(str(named))
    if has_pixels and ds["PixelData"].is_undefined_length:
        raise DicomError("no transfer syntax says how the pixel data is compressed")
    implicit, little = encoding
    return ds, uid.UID(_NATIVE[0] if implicit else _NATIVE[1] if little else _NATIVE[2])


def _image_type(ds: Dataset) -> list[str]:
    value = value_of(ds, "ImageType")
    return [value] if isinstance(value, str) else list(value or ())


def _check_whole(ds: Dataset, syntax: uid.UID) -> None:
    """Refuse uncompressed pixels of which a part is missing; pydicom reads what there is."""
    if "PixelData" not in ds or syntax.is_encapsulated:
        return
    try:
        header = read_pixel_header(ds)
    except UnsupportedError:
        return  # nothing else looks at them either
    if len(ds.PixelData) < header.native_bytes * header.number_of_frames:
        raise DicomError("the pixel data is truncated")


def _drop_comments(ds: Dataset, actions: Actions) -> None:
    try:
        count = max(1, int(value_of(ds, "NumberOfFrames") or 1))
        frames = list(generate_frames(ds.PixelData, number_of_frames=count))
        cleaned = [without_comments(frame) for frame in frames]
        if cleaned == frames:
            return
        ds.PixelData = encapsulate(cleaned)
    except MALFORMED:
        raise DicomError("the pixel data is damaged") from None
    ds["PixelData"].is_undefined_length = True
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in ds:
            delattr(ds, keyword)
    actions.note("removed", "comments in compressed frames", len(frames))


def _say_so(ds: Dataset, profile: Profile) -> None:
    """Say in the object what was done to it, and by which profile (PS3.15 E.1.1)."""
    ds.PatientIdentityRemoved = "YES"
    ds.LongitudinalTemporalInformationModified = _TEMPORAL[profile.retain_dates]
    ds.DeidentificationMethod = [meaning for _, meaning in profile.codes]
    codes = []
    for value, meaning in profile.codes:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
        codes.append(code)
    ds.DeidentificationMethodCodeSequence = codes
    if profile.clean_pixels and "PixelData" in ds:
        ds.BurnedInAnnotation = "NO"


def _written(ds: Dataset, syntax: uid.UID) -> bytes:
    """The file, with new file meta information and a preamble of zeros; read again, to be sure."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    ds.file_meta, ds.preamble = meta, bytes(128)
    file = BytesIO()
    try:
        dcmwrite(file, ds, enforce_file_format=True)
        data = file.getvalue()
        again = dcmread(BytesIO(data))
        kept = set(ds.keys()) <= set(again.keys())
        same = "PixelData" not in ds or len(again.PixelData) == len(ds.PixelData)
    except MALFORMED:
        raise DicomError("it holds values that cannot be written again") from None
    if not (kept and same):
        raise DicomError("it would not be whole when written again")
    return data
