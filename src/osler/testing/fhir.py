"""Synthetic FHIR: one woman who does not exist, and bundles around her."""

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from osler.ingest.fhir.fields import object_of

Json = dict[str, Any]

PATIENT: Json = {
    "resourceType": "Patient",
    "id": "p1",
    "name": [{"family": "Nobody", "given": ["Nemo"]}],
    "gender": "female",
    "birthDate": "1961-04-02",
}
SUBJECT = {"reference": "Patient/p1"}


def as_read(value: Json) -> dict[str, Raw]:
    """An object as the readers of records get it."""
    return object_of(json.dumps(value).encode())


def resource(kind: str, id: str, **fields: Any) -> Json:
    """A resource about the patient."""
    who = "patient" if kind in ("AllergyIntolerance", "Immunization") else "subject"
    return {"resourceType": kind, "id": id, who: SUBJECT, **fields}


def coded(text: str, code: str = "", system: str = "http://snomed.info/sct") -> Json:
    """A CodeableConcept."""
    coding = [{"system": system, "code": code, "display": text}] if code else []
    return {"coding": coding, "text": text}


def code_only(code: str, system: str = "http://terminology.hl7.org/x") -> Json:
    """A CodeableConcept without words."""
    return {"coding": [{"system": system, "code": code}]}


def lab(
    id: str,
    date: str,
    value: float | str,
    unit: str = "g/dL",
    *,
    name: str = "Hemoglobin [Mass/volume] in Blood",
    code: str = "718-7",
    **fields: Any,
) -> Json:
    """A laboratory result."""
    quantity = {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
    return resource(
        "Observation",
        id,
        **{
            "status": "final",
            "category": [coded("Laboratory", "laboratory")],
            "code": coded(name, code, "http://loinc.org"),
            "effectiveDateTime": date,
            "valueQuantity": quantity,
            **fields,
        },
    )


def attachment(text: str | bytes, content_type: str = "text/plain") -> Json:
    """An Attachment with its content in it."""
    raw = text.encode() if isinstance(text, str) else text
    return {"contentType": content_type, "data": base64.b64encode(raw).decode()}


def note(id: str, date: str, *contents: Json, **fields: Any) -> Json:
    """A DocumentReference."""
    return resource(
        "DocumentReference",
        id,
        status="current",
        type=coded("Discharge summary", "18842-5", "http://loinc.org"),
        date=date,
        content=[{"attachment": content} for content in contents],
        **fields,
    )


def bundle(*resources: Mapping[str, Any], kind: str = "collection") -> bytes:
    """A bundle, as a file holds it; full URLs as a transaction has them."""
    entries = [
        {"resource": item} | ({"fullUrl": f"urn:uuid:{item['id']}"} if "id" in item else {})
        for item in resources
    ]
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}).encode()


def ndjson(*resources: Mapping[str, Any]) -> bytes:
    """Lines of a bulk export."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in resources)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return data.getvalue()
