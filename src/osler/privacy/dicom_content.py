"""The content items of structured reports: texts and codes in the tree of a document."""

from typing import Any

from pydicom import Dataset

from osler.ingest.dicom.attributes import MALFORMED
from osler.privacy.actions import Actions
from osler.privacy.dicom_values import ANONYMOUS
from osler.privacy.free_text import TextCleaner

# What items are about that say who somebody is, or which device it was: nothing of them stays.
# CID 271, 1001 to 1004, 7452 and TID 1001 to 1010 of PS3.16.
_IDENTIFYING = frozenset(
    """
    121008 121009 121010 121011 121013 121014 121015 121016 121017 121018 121019 121020 121022
    121024 121025 121026 121027 121028 121029 121030 121031 121036 121037 121040 121041 121042
    110119 110190 121148 121149 121150 121152 121153 121154 121173 121174 121191 121192 122040
    126801 128429 128774 128775 113878 113879 113880
""".split()
)
_BIRTH_DATE = "121031"


class ContentCleaner:
    """Cleans the values of content items.

    Args:
        text: cleans what text stays.
        actions: where to say what was done.
    """

    def __init__(self, text: TextCleaner, actions: Actions) -> None:
        self._text = text
        self._actions = actions

    def clean(self, item: Dataset) -> None:
        """Clean an item in place.

        Its names, dates and UIDs are attributes like others, and left to the table.

        Source: PS3.3 C.17.3.
        """
        concept = _code_of(item)
        is_identifying = concept in _IDENTIFYING
        if "TextValue" in item:
            self._text_value(item, is_identifying)
        if concept == _BIRTH_DATE and "Date" in item:
            item.Date = ""  # a date that is known, moved, would tell by how much
            self._actions.note("emptied", "content item DATE")
        if "CodeMeaning" in item and self._text.known.holds(str(_value(item, "CodeMeaning"))):
            item.CodeMeaning = ANONYMOUS
            self._actions.note("replaced", "CodeMeaning (0008,0104)")

    def _text_value(self, item: Dataset, is_identifying: bool) -> None:
        before = str(_value(item, "TextValue") or "")
        after = ANONYMOUS if is_identifying and before else self._text.clean(before)[0]
        if after != before:
            item.TextValue = after
            self._actions.note("replaced" if is_identifying else "cleaned", "content item TEXT")


def _code_of(item: Dataset) -> str:
    concepts = _value(item, "ConceptNameCodeSequence")
    if not concepts:
        return ""
    return str(_value(concepts[0], "CodeValue") or "")


def _value(item: Dataset, keyword: str) -> Any:
    try:
        return item[keyword].value if keyword in item else None
    except MALFORMED:
        return None
