"""Observations, reports, documents and imaging studies.

Source: FHIR R4, Observation, DiagnosticReport, DocumentReference, Composition, ImagingStudy.
"""

import re

from osler.ingest.fhir.attachments import attachment, narrative
from osler.ingest.fhir.context import Context, named
from osler.ingest.fhir.documents import Found
from osler.ingest.fhir.fields import (
    Json,
    child,
    children,
    code_words,
    coding,
    concept,
    count,
    references,
    string,
    words_of_all,
)
from osler.ingest.fhir.limits import MAX_ITEMS, MAX_NESTED_SECTIONS, MAX_NOTE
from osler.ingest.fhir.measurements import measurement
from osler.ingest.fhir.records import (
    Attachment,
    Component,
    ImagingStudy,
    Note,
    Observation,
    Report,
    Series,
    When,
)

_UID = re.compile(r"(?:urn:oid:)?([0-2](?:\.(?:0|[1-9][0-9]*))+)")
_MAX_UID = 64  # PS3.5 section 9.1


def observation(resource: Json, found: Found, context: Context) -> Observation:
    """`Observation`."""
    start, end = _effective(resource, context)
    parts = (
        Component(concept(item, "code"), measurement(item))
        for item in children(resource, "component")
    )
    return Observation(
        **context.common(resource, found, concept(resource, "code")),
        start=start,
        end=end,
        category=_category(resource),
        measurement=measurement(resource),
        components=tuple(parts),
    )


def diagnostic_report(resource: Json, found: Found, context: Context) -> Report:
    """`DiagnosticReport`."""
    start, end = _effective(resource, context)
    conclusions = [string(resource, "conclusion"), *words_of_all(resource, "conclusionCode")]
    return Report(
        **context.common(resource, found, concept(resource, "code")),
        start=start,
        end=end,
        category=_category(resource),
        conclusion="; ".join(dict.fromkeys(filter(None, conclusions))),
        results=tuple(context.source(text) for text in references(resource, "result")),
        studies=tuple(context.source(text) for text in references(resource, "imagingStudy")),
        attachments=tuple(
            attachment(item, lambda url: context.find(url, resource))
            for item in children(resource, "presentedForm")
        ),
    )


def document_reference(resource: Json, found: Found, context: Context) -> Note:
    """`DocumentReference`."""
    kind = concept(resource, "type")
    within = child(resource, "context")
    common = context.common(resource, found, kind if kind.text else named(_title(resource)))
    common["encounter"] = next(map(context.source, references(within, "encounter")), "")
    period = child(within, "period")
    return Note(
        **common,
        start=context.date(resource, "date") or context.date(period, "start"),
        category=_category(resource),
        attachments=tuple(
            attachment(child(item, "attachment"), lambda url: context.find(url, resource))
            for item in children(resource, "content")
        ),
    )


def composition(resource: Json, found: Found, context: Context) -> Note:
    """`Composition`: the narratives of its sections, one attachment."""
    texts: list[str] = []
    open_sections = [(item, 1) for item in reversed(children(resource, "section"))]
    while open_sections and len(texts) < MAX_ITEMS:
        section, depth = open_sections.pop()
        if depth < MAX_NESTED_SECTIONS:
            inner = reversed(children(section, "section"))
            open_sections += [(item, depth + 1) for item in inner]
        if text := narrative(section):
            texts.append("\n".join(filter(None, (string(section, "title"), text))))
    return Note(
        **context.common(resource, found, concept(resource, "type")),
        start=context.date(resource, "date"),
        category=_category(resource),
        attachments=(Attachment("\n\n".join(texts)[:MAX_NOTE], "text/html"),) if texts else (),
    )


def imaging_study(resource: Json, found: Found, context: Context) -> ImagingStudy:
    """`ImagingStudy`."""
    series = tuple(
        Series(
            series_uid=uid(string(item, "uid")),
            modality=string(child(item, "modality"), "code"),
            body_site=code_words(coding(item, "bodySite")),
            description=string(item, "description"),
            instances=count(item, "numberOfInstances") or len(children(item, "instance")),
        )
        for item in children(resource, "series")
    )
    declared = [string(item, "code") for item in children(resource, "modality")]
    modalities = tuple(dict.fromkeys(filter(None, [*declared, *(s.modality for s in series)])))
    sites = dict.fromkeys(filter(None, (item.body_site for item in series)))
    procedures = words_of_all(resource, "procedureCode")
    words = [string(resource, "description"), *procedures, " ".join([*modalities, *sites])]
    identifiers = (string(item, "value") for item in children(resource, "identifier"))
    study_uid = next(filter(None, map(uid, identifiers)), "")
    if not study_uid:
        context.problems["an imaging study without a DICOM UID"] += 1
    return ImagingStudy(
        **context.common(resource, found, named(next(filter(None, words), ""))),
        start=context.date(resource, "started"),
        study_uid=study_uid,
        modalities=modalities,
        series=series,
    )


def uid(text: str) -> str:
    """A DICOM UID out of an identifier or `uid`; "" where it is none.

    >>> uid("urn:oid:1.2.840.99"), uid("urn:uuid:5b8d")
    ('1.2.840.99', '')
    """
    match = _UID.fullmatch(text)
    return match[1] if match and len(match[1]) <= _MAX_UID else ""


def _effective(resource: Json, context: Context) -> tuple[When | None, When | None]:
    """`effective[x]`, or when it was issued."""
    point = context.date(resource, "effectiveDateTime", "effectiveInstant")
    if "effectivePeriod" not in resource:
        return point or context.date(resource, "issued"), None
    period = child(resource, "effectivePeriod")
    start = point or context.date(period, "start") or context.date(resource, "issued")
    return start, context.date(period, "end")


def _category(resource: Json) -> str:
    return next(iter(words_of_all(resource, "category")), "")


def _title(resource: Json) -> str:
    titles = (string(child(item, "attachment"), "title") for item in children(resource, "content"))
    return string(resource, "description") or next(filter(None, titles), "")
