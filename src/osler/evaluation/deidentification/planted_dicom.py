"""DICOM files with identifiers in every place that there is."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, dcmwrite, uid
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import FileMetaDataset

from osler.evaluation.deidentification.identifiers import Identifiers, Plant
from osler.privacy.profile import standard_tags

_TEXT = {"LO", "SH", "ST", "LT", "UT", "UC", "AE", "CS"}
_SHORT = {"SH": 16, "AE": 16, "CS": 16}
# What makes a file a file of its kind, and what is planted by hand.
_NOT_FILLED = {
    "SOPInstanceUID", "MediaStorageSOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
    "TransferSyntaxUID", "TimezoneOffsetFromUTC", "EncapsulatedDocument", "PixelData",
    "PatientIdentityRemoved", "SpecificCharacterSet", "FrameOfReferenceUID",
}  # fmt: skip


class DicomPlanter:
    """Makes planted objects of one patient.

    Args:
        ids: what to plant.
    """

    def __init__(self, ids: Identifiers) -> None:
        self.ids = ids
        self.plants: list[Plant] = []
        self.study, self.frame_of_reference = ids.uid(), ids.uid()
        self.family, self.middle = ids.word(), ids.word()
        self.patient_id = ids.digits(9)

    def plant(self, place: str, file: str, value: str) -> str:
        """Note an identifier, and give it back."""
        self.plants.append(Plant(place=place, file=file, value=value))
        return value

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Files by name: objects of all kinds but those with text in their pixels."""
        image = self.header_object("header.dcm")
        yield "header.dcm", file_of(image)
        nested = self.nested_object("nested.dcm")
        yield "nested.dcm", file_of(nested)
        yield "overlays.dcm", file_of(self.overlay_object("overlays.dcm"))
        yield "file-meta.dcm", self.file_meta_object("file-meta.dcm")
        references = [str(image.SOPInstanceUID), str(nested.SOPInstanceUID)]
        yield "report.dcm", file_of(self.report("report.dcm", references))

    def base(self, file: str, modality: str = "OT", sop_class: str = "") -> Dataset:
        """An object with the patient in it."""
        ds = Dataset()
        ds.SOPClassUID = sop_class or uid.SecondaryCaptureImageStorage
        ds.SOPInstanceUID = uid.UID(self.plant("UID", file, self.ids.uid()))
        ds.StudyInstanceUID = self.plant("UID", file, self.study)
        ds.SeriesInstanceUID = self.plant("UID", file, self.ids.uid())
        ds.FrameOfReferenceUID = self.plant("UID", file, self.frame_of_reference)
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.Modality = modality
        ds.PatientName = f"{self.family}^{self.middle}"
        ds.PatientID = self.patient_id
        for value in (self.family, self.middle, self.patient_id):
            self.plant("patient", file, value)
        return ds

    def header_object(self, file: str) -> Dataset:
        """Every attribute of table E.1-1 that holds text, a date or a UID, each with a value."""
        ds = with_pixels(self.base(file), np.zeros((32, 32), np.uint8))
        for tag in standard_tags():
            keyword = keyword_for_tag(tag)
            if keyword and keyword not in _NOT_FILLED and tag >> 16 > 4 and keyword not in ds:
                self._fill(ds, tag, "header", file)
        return ds

    def nested_object(self, file: str) -> Dataset:
        """The same, three sequences deep, in sequences that stay."""
        ds = with_pixels(self.base(file), np.zeros((32, 32), np.uint8))
        outer, middle, inner = Dataset(), Dataset(), Dataset()
        for tag in list(standard_tags())[::3]:
            keyword = keyword_for_tag(tag)
            if keyword and keyword not in _NOT_FILLED and tag >> 16 > 4:
                self._fill(inner, tag, "nested", file)
        middle.ReferencedSOPSequence = [inner]
        outer.RelatedSeriesSequence = [middle]
        ds.SharedFunctionalGroupsSequence = [outer]
        block = ds.private_block(0x0011, "ACME 1.1", create=True)
        block.add_new(1, "LO", self.plant("private", file, self.ids.word()))
        block.add_new(2, "PN", self.plant("private", file, self.ids.word()))
        item = Dataset()
        item.PatientComments = self.plant("private", file, self.ids.word())
        block.add_new(3, "SQ", [item])
        block.add_new(4, "UN", self.plant("private", file, self.ids.word()).encode())
        inner_block = inner.private_block(0x0013, "ACME 1.1", create=True)
        inner_block.add_new(1, "LT", self.plant("private", file, self.ids.word()))
        # Of the patient, where no table looks: in codes and labels that stay.
        ds.ImageType = ["DERIVED", "SECONDARY", self.family.upper()]
        ds.ManufacturerModelName = f"Scanner of {self.plant('elsewhere', file, self.middle)}"
        ds.BodyPartExamined = self.plant("elsewhere", file, self.family).upper()
        ds.ConvolutionKernel = self.plant("elsewhere", file, self.patient_id)
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = "1", "99ACME"
        code.CodeMeaning = f"Knee of {self.plant('elsewhere', file, self.family)}"
        ds.AnatomicRegionSequence = [code]
        return ds

    def overlay_object(self, file: str) -> Dataset:
        """Overlays, curves, an icon, and names drawn by a presentation."""
        ds = with_pixels(self.base(file), np.zeros((32, 32), np.uint8))
        for group in (0x6000, 0x6002, 0x601E):
            ds.add_new((group, 0x0010), "US", 32)
            ds.add_new((group, 0x0011), "US", 32)
            ds.add_new((group, 0x0022), "LO", self.plant("overlay", file, self.ids.word()))
            ds.add_new((group, 0x1500), "LO", self.plant("overlay", file, self.ids.word()))
            text = self.plant("overlay", file, self.ids.word()).encode()
            ds.add_new((group, 0x3000), "OW", text.ljust(128, b"\0"))
            ds.add_new((group, 0x4000), "LT", self.plant("overlay", file, self.ids.word()))
        for group in (0x5000, 0x5004):
            ds.add_new((group, 0x0022), "LO", self.plant("curve", file, self.ids.word()))
            text = self.plant("curve", file, self.ids.word()).encode()
            ds.add_new((group, 0x3000), "OW", text + bytes(len(text) % 2))
        text = self.plant("icon", file, self.ids.word()).encode()
        icon = with_pixels(Dataset(), np.zeros((16, 16), np.uint8))
        icon.PixelData = text.ljust(256, b"\0")
        ds.IconImageSequence = [icon]
        note = Dataset()
        note.UnformattedTextValue = self.plant("graphics", file, self.ids.word())
        annotation = Dataset()
        annotation.GraphicLayer, annotation.TextObjectSequence = "1", [note]
        ds.GraphicAnnotationSequence = [annotation]
        return ds

    def file_meta_object(self, file: str) -> bytes:
        """The preamble, the file meta information, and what follows the data set."""
        ds = with_pixels(self.base(file), np.zeros((32, 32), np.uint8))
        ds.DataSetTrailingPadding = self.plant("file meta", file, self.ids.word()).encode() + b"\0"
        ds.file_meta = FileMetaDataset()
        for keyword in (
            "SourceApplicationEntityTitle",
            "SendingApplicationEntityTitle",
            "ReceivingApplicationEntityTitle",
            "ImplementationVersionName",
        ):
            setattr(ds.file_meta, keyword, self.plant("file meta", file, self.ids.word()[:16]))
        ds.file_meta.PrivateInformationCreatorUID = uid.UID(
            self.plant("file meta", file, self.ids.uid())
        )
        ds.file_meta.PrivateInformation = self.plant("file meta", file, self.ids.word()).encode()
        return file_of(ds, preamble=self.plant("file meta", file, self.ids.word()).encode())

    def report(self, file: str, references: list[str]) -> Dataset:
        """A structured report with an item of each kind, on the files of some UIDs."""
        ds = self.base(file, "SR", uid.ComprehensiveSRStorage)
        ids = self.ids

        def planted(value: str) -> str:
            return self.plant("structured report", file, value)

        day = ids.day()
        sentences = (
            f"Discussed with Dr. {planted(ids.word())} by telephone {planted(ids.phone())}.",
            f"{planted(self.family)} reports less pain than on {planted(ids.day().isoformat())}.",
            f"Compared with {day:%d %B %Y}, MRN {planted(ids.digits(8))}, unchanged.",
            f"Signed by: {ids.given()} {planted(ids.word())}, MD",
        )
        planted(f"{day:%d %B %Y}")
        items = [_item("TEXT", "121071", "Finding", TextValue=text) for text in sentences]
        items += [
            _item("PNAME", "121008", "Person Observer Name", PersonName=planted(ids.word())),
            _item("TEXT", "121029", "Subject Name", TextValue=planted(ids.word())),
            _item("TEXT", "121030", "Subject ID", TextValue=planted(ids.digits(7))),
            _item("DATE", "121031", "Subject Birth Date", Date=planted(f"{ids.day():%Y%m%d}")),
            _item("DATETIME", "111060", "Study Date", DateTime=planted(f"{ids.day():%Y%m%d}1200")),
            _item("UIDREF", "121012", "Device Observer UID", UID=planted(ids.uid())),
            _item("TEXT", "121016", "Device Serial Number", TextValue=planted(ids.word())),
        ]
        for reference in references:
            target = Dataset()
            target.ReferencedSOPClassUID = uid.SecondaryCaptureImageStorage
            target.ReferencedSOPInstanceUID = reference
            items.append(_item("IMAGE", "121180", "Key Images", ReferencedSOPSequence=[target]))
        container = _item("CONTAINER", "121070", "Findings", ContentSequence=items)
        ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
        ds.ContentSequence = [container]
        return ds

    def _fill(self, ds: Dataset, tag: int, place: str, file: str) -> None:
        vr = dictionary_VR(tag)
        value: Any
        if vr == "PN":
            value = f"{self.ids.word()}^{self.ids.word()}"
            for part in value.split("^"):
                self.plant(f"{place} PN", file, part)
        elif vr in _TEXT:
            value = self.plant(f"{place} text", file, self.ids.word())[: _SHORT.get(vr, 64)]
            value = value.upper() if vr == "CS" else value
        elif vr in ("DA", "DT"):
            value = self.plant(f"{place} date", file, f"{self.ids.day():%Y%m%d}")
            value += "101112" if vr == "DT" else ""
        elif vr == "UI":
            value = self.plant(f"{place} UID", file, self.ids.uid())
        elif vr == "TM":
            value = f"1011{self.plant(f'{place} time', file, f'12.{self.ids.digits(6)}')}"
        else:
            return
        ds.add_new(tag, vr, value)


def with_pixels(ds: Dataset, stored: np.ndarray[Any, Any]) -> Dataset:
    """The object with one uncompressed frame, or with several of three dimensions."""
    is_color = stored.shape[-1] == 3
    frames = stored[None] if stored.ndim == 2 + is_color else stored
    ds.Rows, ds.Columns = frames.shape[1:3]
    if len(frames) > 1:
        ds.NumberOfFrames = len(frames)
    ds.SamplesPerPixel = 3 if is_color else 1
    ds.PhotometricInterpretation = "RGB" if is_color else "MONOCHROME2"
    if is_color:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * stored.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    data = stored.tobytes()
    ds.add_new(
        "PixelData", "OB" if stored.dtype.itemsize == 1 else "OW", data + bytes(len(data) % 2)
    )
    return ds


def _item(kind: str, code: str, meaning: str, **values: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", kind
    concept = Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = code, "DCM", meaning
    item.ConceptNameCodeSequence = [concept]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def file_of(
    ds: Dataset, *, preamble: bytes = b"", syntax: str = uid.ExplicitVRLittleEndian
) -> bytes:
    """The bytes of a file."""
    if not hasattr(ds, "file_meta"):
        ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.preamble = preamble.ljust(128, b"\0")
    file = BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def dicomdir_of(planter: DicomPlanter, file: str) -> bytes:
    """A DICOMDIR that names the patient and the files."""
    ds = Dataset()
    ds.SOPClassUID = uid.MediaStorageDirectoryStorage
    ds.SOPInstanceUID = planter.ids.uid()
    record = Dataset()
    record.DirectoryRecordType = "PATIENT"
    record.PatientName = planter.plant("DICOMDIR", file, planter.ids.word())
    record.PatientID = planter.plant("DICOMDIR", file, planter.ids.digits(9))
    record.ReferencedFileID = [planter.plant("DICOMDIR", file, planter.ids.word().upper()), "IM1"]
    ds.DirectoryRecordSequence = [record]
    return file_of(ds)
