"""A draft as a PDF in a DICOM object (PS3.3 A.45.1)."""

from functools import cache
from html import escape
from io import BytesIO

from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer

from osler.archive.results.base import TITLE, code_sequence, new_result, refer_to_sources
from osler.archive.results.draft import Draft
from osler.archive.results.source import Sources, references

_FONT = "Vera"  # comes with reportlab, and so into the file
_HEADING = "Draft report"


def pdf_report(draft: Draft, sources: Sources) -> Dataset:
    """Write a draft as an encapsulated PDF.

    Args:
        draft: what the model said.
        sources: what it saw.
    """
    ds = new_result(
        draft,
        sources,
        sop_class=EncapsulatedPDFStorage,
        modality="DOC",
        series=3,
        name="Draft report, PDF",
    )
    ds.ConversionType = "WSD"
    ds.AcquisitionDateTime = None
    # The words are the model's, which may repeat a name that it read in an image.
    ds.BurnedInAnnotation = "YES"
    ds.DocumentTitle = _HEADING
    ds.VerificationFlag = "UNVERIFIED"
    ds.ConceptNameCodeSequence = code_sequence(TITLE)
    ds.SourceInstanceSequence = references(sources.instances)
    refer_to_sources(ds, sources)
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data = make_pdf(draft)
    ds.EncapsulatedDocumentLength = len(data)
    ds.add_new("EncapsulatedDocument", "OB", data + bytes(len(data) % 2))
    return ds


def make_pdf(draft: Draft) -> bytes:
    """The pages: a heading, the model's words, the notice, where the words came from."""
    pdfmetrics.registerFont(_font())
    plain = ParagraphStyle("plain", fontName=_FONT, fontSize=10, leading=14, spaceAfter=6)
    heading = ParagraphStyle("heading", parent=plain, fontSize=16, leading=22)
    small = ParagraphStyle("small", parent=plain, fontSize=8, leading=11, splitLongWords=1)
    pages: list[Flowable] = [Paragraph(_HEADING, heading)]
    pages += [_paragraph(line, plain) for line in draft.text.splitlines() if line.strip()]
    pages += [Spacer(0, 8 * mm), _paragraph(draft.notice, plain)]
    pages += [_paragraph(draft.provenance, small)]
    file = BytesIO()
    SimpleDocTemplate(file, pagesize=A4, title=_HEADING, author="Osler").build(pages)
    return file.getvalue()


@cache
def _font() -> TTFont:
    return TTFont(_FONT, f"{_FONT}.ttf")


def _paragraph(text: str, style: ParagraphStyle) -> Paragraph:
    """Words as they are; letters that the font does not have, by their numbers."""
    letters = _font().face.charToGlyph
    shown = "".join(
        one if ord(one) in letters or one.isspace() else f"[U+{ord(one):04X}]" for one in text
    )
    return Paragraph(escape(shown, quote=False), style)
