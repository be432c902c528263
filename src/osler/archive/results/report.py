"""A draft as Basic Text SR (PS3.3 A.35.1)."""

from uuid import NAMESPACE_OID, uuid5

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import BasicTextSRStorage

from osler.archive.results.base import TITLE, new_result
from osler.archive.results.draft import Draft
from osler.archive.results.source import Sources, evidence

_CONTAINS = RelationshipTypeValues.CONTAINS


def text_report(draft: Draft, sources: Sources) -> Dataset:
    """Write a draft as a preliminary, unverified text report.

    Its findings are the model's words; one comment is the notice. The observer is the model, with
    the digests of its input as its algorithm's parameters, and all its input images are listed and
    entered as evidence.

    Args:
        draft: what the model said.
        sources: what it saw.
    """
    ds = new_result(
        draft,
        sources,
        sop_class=BasicTextSRStorage,
        modality="SR",
        series=1,
        name="Draft report",
    )
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CompletionFlag = "COMPLETE"
    ds.VerificationFlag = "UNVERIFIED"
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.CurrentRequestedProcedureEvidenceSequence = evidence(sources.here)
    if sources.elsewhere:
        ds.PertinentOtherEvidenceSequence = evidence(sources.elsewhere)
    ds.update(_content(draft, sources))
    return ds


def _content(draft: Draft, sources: Sources) -> Dataset:
    root = ContainerContentItem(name=CodedConcept.from_code(TITLE), is_content_continuous=False)
    findings = _container(codes.DCM.Findings)
    findings.ContentSequence = ContentSequence([_text(codes.DCM.Finding, draft.text)])
    library = _container(codes.DCM.ImageLibrary)
    library.ContentSequence = ContentSequence(
        [
            ImageContentItem(
                name=codes.DCM.SourceImageForImageProcessingOperation,
                referenced_sop_class_uid=instance.sop_class_uid,
                referenced_sop_instance_uid=instance.sop_uid,
                relationship_type=_CONTAINS,
            )
            for instance in sources.instances
        ]
    )
    root.ContentSequence = ContentSequence(
        [
            *_observer(draft),
            findings,
            _text(codes.DCM.Comment, draft.notice),
            *_algorithm(draft),
            library,
        ]
    )
    return root


def _observer(draft: Draft) -> ContentSequence:
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            # The same model is the same device, in every report.
            uid=f"2.25.{uuid5(NAMESPACE_OID, f'{draft.model} {draft.version}').int}",
            manufacturer_name="Osler",
            model_name=draft.model,
        ),
    )


def _algorithm(draft: Draft) -> ContentSequence:
    items = AlgorithmIdentification(
        name=draft.model,
        version=draft.version,
        parameters=[f"input SHA-256: {digest}" for digest in dict.fromkeys(draft.input_sha256)],
    )
    for item in items:
        item.RelationshipType = _CONTAINS.value
    return items


def _container(name: CodedConcept) -> ContainerContentItem:
    return ContainerContentItem(name=name, relationship_type=_CONTAINS)


def _text(name: CodedConcept, value: str) -> TextContentItem:
    return TextContentItem(name=name, value=value, relationship_type=_CONTAINS)
