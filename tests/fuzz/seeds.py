"""What mutations start from: pydicom's files and our own, with a name that must not get out."""

import gzip
import json
import tempfile
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import gguf
import nibabel
import numpy as np
import pydicom
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo
from pydicom import dcmread, uid

from osler.ingest.dicom.attributes import MALFORMED
from osler.testing.ccda import CCDA
from osler.testing.dicom import LOSSLESS_SYNTAXES, LOSSY_SYNTAXES, make_dicom
from osler.testing.fhir import (
    PATIENT,
    attachment,
    bundle,
    coded,
    lab,
    ndjson,
    note,
    resource,
    zipped,
)
from osler.testing.series import make_enhanced, make_frames, make_series, slices
from osler.testing.slides import STAIN, pyramid, write_dicom, write_svs, write_tiff

NAME = "Quaxolotl"
GIVEN = "Zebulonia"
_PERSON = f"{NAME}^{GIVEN}"
# Larger files are slow to go through many times, and no different in kind.
_MOST_BYTES = 50_000

_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
_DEPTH = np.arange(20 * 24, dtype=np.uint16).reshape(20, 24) * 7
_COLORS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
_JPEG = (*uid.JPEGTransferSyntaxes,)
_OTHERS = {
    "rle": (uid.RLELossless,),
    "jpeg": _JPEG,
    "jpeg-ls": (*uid.JPEGLSTransferSyntaxes,),
    "jpeg-2000": (uid.JPEG2000, uid.JPEG2000Lossless),
    "htj2k": (uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL),
    "deflated": (uid.DeflatedExplicitVRLittleEndian,),
}


def dicom(coding: str) -> list[bytes]:
    """DICOM objects of one kind of transfer syntax; all that are not compressed are "native"."""
    found = []
    for path in sorted(_FILES.glob("*.dcm")):
        data = path.read_bytes()
        if len(data) <= _MOST_BYTES and _coding(data) == coding:
            found.append(_planted(data))
    for syntax in (*LOSSLESS_SYNTAXES, *LOSSY_SYNTAXES):
        if _coding_of(syntax) == coding:
            grey = _DEPTH.astype(np.uint8) if syntax in LOSSY_SYNTAXES else _DEPTH
            found += [
                make_dicom(grey, syntax=syntax, PatientName=_PERSON),
                make_dicom(_COLORS, syntax=syntax, PatientName=_PERSON, PatientComments=GIVEN),
                make_frames([grey, grey[::-1]], syntax=syntax, PatientName=_PERSON),
            ]
    if coding == "native":
        cut = slices(4, side_px=12)
        found += [make_enhanced(cut, PatientName=_PERSON), *make_series(cut[:1], PatientID=NAME)]
    return found


def dicomdir() -> list[bytes]:
    """Directories of discs."""
    paths = sorted((_FILES / "dicomdirtests").glob("DICOMDIR*"))
    return [_planted(path.read_bytes()) for path in paths if path.is_file()]


def picture(kind: str) -> list[bytes]:
    """Pictures of several modes."""
    found = []
    for mode in ("RGB", "L", "P", "RGBA", "I;16", "CMYK", "1"):
        options: dict[str, object] = {}
        if kind == "PNG":
            options["pnginfo"] = PngInfo()
            options["pnginfo"].add_text("Patient", _PERSON)  # type: ignore[attr-defined]
        if kind == "JPEG":
            options["comment"] = _PERSON.encode()
        if kind in ("JPEG", "WEBP"):
            exif = Picture.Exif()
            exif[0x010E], exif[0x0112] = _PERSON, 6
            options["exif"] = exif
        if kind == "TIFF":
            options["description"] = _PERSON
        pixels = Picture.fromarray(_DEPTH if mode == "I;16" else _COLORS)
        file = BytesIO()
        try:
            (pixels if mode == "I;16" else pixels.convert(mode)).save(file, kind, **options)
        except OSError:  # a mode that the format has not
            continue
        found.append(file.getvalue())
    if kind == "TIFF":
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
            file = BytesIO()
            mode = "1" if compression == "group4" else "RGB"
            pixels = Picture.fromarray(_COLORS).convert(mode)
            pixels.save(file, kind, compression=compression)
            found.append(file.getvalue())
    return found


def nifti() -> list[bytes]:
    """Volumes of several types, in both versions."""
    found = []
    volume = np.arange(6 * 5 * 4).reshape(6, 5, 4)
    for kind in (np.int16, np.float32, np.uint8, np.float64):
        for make in (nibabel.Nifti1Image, nibabel.Nifti2Image):
            image = make(volume.astype(kind), np.diag([1.0, 1.5, 3.0, 1.0]))
            image.header["descrip"] = _PERSON.encode()
            image.header.set_slope_inter(2.0, -1000.0)
            found.append(image.to_bytes())
    return [*found, nibabel.Nifti1Image(np.zeros((4, 4, 3, 2), np.int16), np.eye(4)).to_bytes()]


def zips() -> list[bytes]:
    """Zips of DICOM objects, pictures and volumes, stored and deflated."""
    film = make_dicom(_DEPTH, PatientName=_PERSON)
    members = {
        "a/film.dcm": film,
        "a/b/head.nii": nifti()[0],
        "c.png": picture("PNG")[0],
        "more.zip": b"PK\3\4",
        "readme.txt": _PERSON.encode(),
    }
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.comment = _PERSON.encode()
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(name), data, method)
        found.append(file.getvalue())
    return found


def fhir() -> list[bytes]:
    """A bundle with something of each kind, a resource, a bundle in a bundle."""
    one = bundle(*_resources())
    return [one, json.dumps(_resources()[1]).encode(), bundle(json.loads(one))]


def bulk() -> list[bytes]:
    """Lines of an export."""
    return [ndjson(*_resources())]


def ccda() -> list[bytes]:
    """A document."""
    return [CCDA.replace(b"Nobody", NAME.encode()).replace(b"Nemo", GIVEN.encode())]


def ggufs() -> list[bytes]:
    """A file with metadata of every type, and tensors."""
    writer = gguf.GGUFWriter(None, "gemma3")
    writer.add_string("general.name", NAME)
    writer.add_uint32("gemma3.block_count", 1)
    writer.add_float32("gemma3.rope", 1.5)
    writer.add_bool("gemma3.flag", True)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_tensor("blk.0.weight", np.ones((2, 32), np.float32))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.gguf")
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return [path.read_bytes()]


def safetensors() -> list[bytes]:
    """Two tensors."""
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
        }
    ).encode()
    return [len(header).to_bytes(8, "little") + header + bytes(24)]


def whole_slides() -> list[bytes]:
    """Pyramids of two levels: TIFF, SVS, and the larger level of one in DICOM."""
    levels = pyramid(np.full((520, 300, 3), STAIN, np.uint8), 2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [
            write_tiff(folder / "deflated.tiff", levels),
            write_tiff(folder / "jpeg.tiff", levels, compression="jpeg"),
            write_svs(folder / "x.svs", levels, told=f"User = {NAME}|AppMag = 20|MPP = 0.5"),
        ]
        for organization in ("TILED_FULL", "TILED_SPARSE"):
            written = write_dicom(
                folder / organization, levels, syntax=uid.JPEGBaseline8Bit,
                organization=organization, PatientName=_PERSON,
            )  # fmt: skip
            files.append(written / "level-0.dcm")
        return [file.read_bytes() for file in files]


def fhir_zips() -> list[bytes]:
    """Exports in a zip, with a document beside them."""
    lines, (document, *_) = bulk(), ccda()
    return [zipped({"a.ndjson": data, "b/c.xml": document, "x.txt": b"x"}) for data in lines]


def gzipped(seeds: list[bytes]) -> list[bytes]:
    """The same, compressed."""
    return [gzip.compress(data, mtime=0) for data in seeds]


def _resources() -> list[dict[str, object]]:
    patient = {**PATIENT, "name": [{"family": NAME, "given": [GIVEN]}]}
    return [
        patient,
        lab("o1", "2020-03-01T10:15:00-05:00", 9.1, interpretation=[coded("Low", "L")]),
        note("n1", "2020-03-02", attachment(f"Dear {GIVEN},\nrest."),
             attachment(f"<p>{NAME}<br>x</p>", "text/html")),
        resource("Condition", "c1", code=coded("Anemia"), onsetDateTime="2020",
                 note=[{"text": f"{NAME} says"}]),
        resource("MedicationRequest", "m1", medicationCodeableConcept=coded("Iron"),
                 authoredOn="2020-01-01", reasonReference=[{"reference": "Condition/c1"}],
                 dosageInstruction=[{"text": "one", "timing": {"repeat": {"frequency": 1}}}]),
        resource("ImagingStudy", "i1", started="2020", series=[{"uid": "1.2", "modality": {}}]),
        resource("Encounter", "e1", status="finished", period={"start": "2020-01-01"}),
        resource("DiagnosticReport", "d1", code=coded("CBC"), result=[
            {"reference": "Observation/o1"}], effectiveDateTime="2020"),
        resource("Procedure", "r1", code=coded("x"), reasonReference=[{"reference": "#r"}],
                 contained=[{"resourceType": "Condition", "id": "r", "code": coded(NAME)}]),
    ]  # fmt: skip


def _planted(data: bytes) -> bytes:
    """The same with the name in it, where it is whole enough to be written again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = dcmread(BytesIO(data), force=True)
            ds.PatientName, ds.PatientID, ds.SeriesDescription = _PERSON, NAME, GIVEN
            file = BytesIO()
            ds.save_as(file)
            return file.getvalue()
        except MALFORMED:
            return data


def _coding(data: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meta = dcmread(BytesIO(data), force=True, stop_before_pixels=True).file_meta
    return _coding_of(meta.get("TransferSyntaxUID", ""))


def _coding_of(syntax: str) -> str:
    return next((name for name, syntaxes in _OTHERS.items() if syntax in syntaxes), "native")
