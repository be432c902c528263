"""The child process that parses and cleans: `python -m osler.privacy.worker`.

It is to `osler.privacy` what `osler.ingest.decode_worker` is to reading images.
"""

import logging
import os
import warnings
from typing import Any

import msgspec

from osler.errors import InputError, UnreadableFileError, UnsupportedError
from osler.ingest.decode import is_dicom, is_nifti, is_picture
from osler.ingest.decode_worker import limit_resources
from osler.ingest.wire import receive, send, send_error
from osler.ingest.zip_file import inflate, is_zip
from osler.privacy.actions import Actions
from osler.privacy.fhir_file import clean_fhir, survey_fhir
from osler.privacy.fhir_people import People, Person
from osler.privacy.parcel import pack, unpack
from osler.privacy.plain_file import clean_plain, decode_plain
from osler.privacy.profile import Profile
from osler.privacy.pseudonyms import Pseudonyms
from osler.privacy.records import Asked, Kind, Told

_STDIN, _STDOUT = 0, 1
_GZIP = b"\x1f\x8b"
_DICOMDIR = b"1.2.840.10008.1.3.10"  # Media Storage Directory Storage, in the file meta information
_META_BYTES = 512
_TABLES = (".csv", ".tsv", ".tab")
# What such a file holds, where it is damaged, is no text, however much it looks like one.
_IMAGES = (".dcm", ".dicom", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svs", ".mrxs")
_REFUSED = (
    (b"%PDF", "a PDF, which cannot be cleaned"),
    (b"{\\rtf", "RTF, which is not cleaned"),
    (b"<", "XML or HTML, which is not cleaned"),
    (b"MSH|", "an HL7 message, which is not cleaned"),
)


def main() -> None:
    """Serve requests until standard input is closed."""
    replies = os.dup(_STDOUT)
    with open(os.devnull, "wb") as nowhere:  # for whatever a library prints
        os.dup2(nowhere.fileno(), _STDOUT)
    limit_resources()
    # What the libraries say of a file may quote from it, and a patient's name would go to a log.
    warnings.simplefilter("ignore")
    logging.disable()
    while True:
        try:
            header, payload = receive(_STDIN)
        except EOFError:
            return
        source: str = header["source"]
        try:
            send(replies, {}, _answer(header, payload))
        except MemoryError:
            send_error(replies, UnsupportedError(f"{source}: cleaning needs too much memory"))
        except InputError as error:
            reason = str(error).removeprefix(f"{source}: ")
            send_error(replies, type(error)(f"{source}: {reason}"))


def _answer(header: dict[str, Any], payload: memoryview) -> bytes:
    record, data = unpack(payload)
    asked = msgspec.json.decode(record, type=Asked)
    if header["inflated_bytes"] is not None:
        data = inflate(data, header["inflated_bytes"], header["source"], whole=True)
    profile = Profile(
        retain_dates=asked.retain_dates,
        retain_characteristics=asked.retain_characteristics,
        clean_pixels=asked.clean_pixels,
    )
    pseudonyms = Pseudonyms(bytes.fromhex(asked.key))
    kind = _kind_of(data)
    if kind == "text" and header["source"].lower().endswith(_TABLES):
        raise UnsupportedError("a table, whose columns nothing explains; it is not cleaned")
    if kind == "text" and header["source"].lower().endswith(_IMAGES):
        raise UnreadableFileError("not what its name says it is")
    if kind == "dicomdir":
        return pack(Told(kind=kind))
    if kind == "dicom":
        return _dicom(data, profile, pseudonyms)
    if asked.people is None:
        people = survey_fhir(data) if kind == "fhir" else People()
        if kind == "text":
            decode_plain(data)
        return pack(Told(kind=kind, people=people))
    actions = Actions()
    if kind == "text":
        cleaned = clean_plain(data, asked.people, profile, pseudonyms, actions)
        return pack(Told(kind=kind, actions=actions.record()), cleaned)
    cleaned, are_lines = clean_fhir(data, asked.people, profile, pseudonyms, actions)
    return pack(Told(kind=kind, are_lines=are_lines, actions=actions.record()), cleaned)


def _dicom(data: bytes, profile: Profile, pseudonyms: Pseudonyms) -> bytes:
    # pydicom and its decoders take half a second to import.
    from osler.privacy.dicom_file import clean_dicom

    actions = Actions()
    made = clean_dicom(data, profile, pseudonyms, actions)
    known = Person(names=set(made.known.names), literals=set(made.known.literals))
    told = Told(
        kind="dicom", place=made.place, people=People(others=known), actions=actions.record()
    )
    return pack(told, made.data)


def _kind_of(data: bytes) -> Kind:
    if is_dicom(data):
        return "dicomdir" if _DICOMDIR in data[:_META_BYTES] else "dicom"
    if is_zip(data):
        raise UnsupportedError("a zip file inside a zip file")
    if is_picture(data):
        raise UnsupportedError("a picture, which is not cleaned; only DICOM objects' pixels are")
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    for beginning, reason in _REFUSED:
        if start.startswith(beginning):
            raise UnsupportedError(reason)
    if start.startswith(b"{") or data.startswith(_GZIP):
        return "fhir"
    if is_nifti(data):
        raise UnsupportedError("a NIfTI file, which is not cleaned")
    if start.startswith(b"["):
        raise UnreadableFileError("JSON that is no FHIR resource")
    return "text"


if __name__ == "__main__":
    main()
