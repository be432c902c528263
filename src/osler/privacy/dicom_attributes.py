"""The attributes of a data set, one by one, by table E.1-1; nested ones as those on top."""

import re
from collections.abc import Callable
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.tag import BaseTag

from osler.errors import DicomError
from osler.ingest.dicom.attributes import MALFORMED
from osler.privacy.actions import Actions
from osler.privacy.dates import shift_dicom
from osler.privacy.dicom_content import ContentCleaner
from osler.privacy.dicom_values import (
    ANONYMOUS,
    LONG_TEXT_VRS,
    STRUCTURAL,
    TEXT_VRS,
    dummy,
    empty,
    has_form,
)
from osler.privacy.free_text import TextCleaner
from osler.privacy.profile import OLDEST_AGE, Action, Profile
from osler.privacy.pseudonyms import Pseudonyms

_DEEPEST = 64
_STANDARD_UIDS = "1.2.840.10008."
# UIDs of kinds of things, not of things.
_CLASSES = ("SOPClass", "TransferSyntax", "CodingScheme", "MappingResource", "ContextUID")
_STRICT = frozenset(("AS", "DA", "DS", "DT", "IS", "PN", "TM", "UI"))
_PIXELS = frozenset(("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
# They stand for the patient: the same in all objects.
_PATIENT = frozenset(("PatientName", "PatientID", "ClinicalTrialSubjectID"))
_OVERLAYS, _CURVES = range(0x6000, 0x6100), range(0x5000, 0x5100)
# Command elements, file meta information and directories have no place in a data set.
_NO_DATA_SET = (0x0000, 0x0002, 0x0004)
_OFFSET = re.compile(r"[+\-]\d{4}")


class AttributeCleaner:
    """Cleans the attributes of one object.

    Args:
        profile: what is asked for.
        pseudonyms: of the key.
        identity: whom the object is about.
        text: cleans what text stays.
        actions: where to say what was done.
    """

    def __init__(
        self,
        profile: Profile,
        pseudonyms: Pseudonyms,
        identity: str,
        text: TextCleaner,
        actions: Actions,
    ) -> None:
        self._profile = profile
        self._pseudonyms = pseudonyms
        self._patient = pseudonyms.patient(identity)
        self._shift_days = pseudonyms.shift_days(identity)
        self._text = text
        self._actions = actions
        self._content = ContentCleaner(text, actions)
        self._do: dict[Action, Callable[[Dataset, DataElement, str, int], None]] = {
            Action.REMOVE: self._remove,
            Action.EMPTY: self._empty,
            Action.DUMMY: self._dummy,
            Action.NEW_UID: self._new_uid,
            Action.SHIFT: self._shift,
            Action.CLEAN: self._clean,
            Action.CLEAN_ITEMS: self._clean_items,
            Action.KEEP: self._keep,
        }

    def clean(self, ds: Dataset, depth: int = 0) -> None:
        """Clean a data set in place.

        Raises:
            DicomError: sequences nested beyond all measure.
        """
        if depth > _DEEPEST:
            raise DicomError(f"sequences nested more than {_DEEPEST} deep")
        self._content.clean(ds)
        for tag in list(ds.keys()):
            group = tag.group
            if tag.is_private:
                self._delete(ds, tag, "private attributes")
            elif group in _OVERLAYS:
                self._delete(ds, tag, "overlays (60xx,xxxx)")
            elif group in _CURVES:
                self._delete(ds, tag, "curves (50xx,xxxx)")
            elif group in _NO_DATA_SET or tag.element == 0 or not dictionary_has_tag(tag):
                self._delete(ds, tag, "attributes that DICOM does not define")
            else:
                self._attribute(ds, tag, depth)

    def _attribute(self, ds: Dataset, tag: BaseTag, depth: int) -> None:
        place = place_of(tag)
        vr = dictionary_VR(tag)
        action = self._profile.action(tag, vr)
        if action is Action.REMOVE:
            self._delete(ds, tag, place)
            return
        try:
            element = ds[tag]
            element.value  # noqa: B018 - it is only now that the bytes are read
        except MALFORMED:
            self._delete(ds, tag, f"unreadable {place}")
            return
        # Where a value is not what its representation says, pydicom takes it for another.
        is_other = vr != element.VR and (vr in _STRICT or "SQ" in (vr, element.VR))
        if is_other or element.VR == "UN" or not has_form(element):
            if action is Action.SHIFT:
                self._dummy(ds, element, place, depth)
            else:
                self._delete(ds, tag, f"unreadable {place}")
            return
        self._do[action](ds, element, place, depth)

    def _delete(self, ds: Dataset, tag: BaseTag, place: str) -> None:
        del ds[tag]
        self._actions.note("removed", place)

    def _remove(self, ds: Dataset, element: DataElement, place: str, depth: int) -> None:
        self._delete(ds, element.tag, place)

    def _empty(self, ds: Dataset, element: DataElement, place: str, depth: int) -> None:
        if element.keyword in _PATIENT:
            self._dummy(ds, element, place, depth)
        elif not element.is_empty:
            self._replace(element, empty(element.VR), "emptied", place)

    def _dummy(self, ds: Dataset, element: DataElement, place: str, depth: int) -> None:
        value = self._patient if element.keyword in _PATIENT else dummy(element.VR)
        if element.VR == "UI":
            self._new_uid(ds, element, place, depth)
        elif not element.is_empty or element.keyword in _PATIENT:
            self._replace(element, value, "replaced", place)

    def _new_uid(self, ds: Dataset, element: DataElement, place: str, depth: int) -> None:
        if element.VR != "UI":
            self._delete(ds, element.tag, place)
        elif not element.is_empty:
            value = _each(element, lambda uid: self._pseudonyms.uid(str(uid)) if uid else "")
            self._replace(element, value, "new UID", place)

    def _shift(self, ds: Dataset, element: DataElement, place: str, depth: int) -> None:
        if element.is_empty or element.VR == "TM":
            return  # days are moved, and the time of day stays
        moved = _each(element, lambda value: shift_dicom(str(value), self._shift_days))
        if moved is None or (isinstance(moved, list) and None in moved):
            self._replace(element, dummy(element.VR), "replaced", place)
        else:
            self._replace(element, moved, "shifted", place)

    def _clean(self, ds: Dataset, element: DataElement, place: str, depth: int) -> None:
        if element.VR == "SQ":
            self._clean_items(ds, element, place, depth)
        elif element.keyword == "TimezoneOffsetFromUTC":
            if not _OFFSET.fullmatch(str(element.value)):
                self._delete(ds, element.tag, place)
        elif element.VR in TEXT_VRS:
            self._clean_text(element, place, all_of_it=True)
        else:
            self._dummy(ds, element, place, depth)

    def _clean_items(self, ds: Dataset, element: DataElement, place: str, depth: int) -> None:
        is_of_persons = element.keyword.endswith(
            ("IdentificationCodeSequence", "InstitutionCodeSequence")
        )
        for item in element.value or ():
            self.clean(item, depth + 1)
            if is_of_persons:
                _make_anonymous(item)
                self._actions.note("replaced", place)

    def _keep(self, ds: Dataset, element: DataElement, place: str, depth: int) -> None:
        vr = element.VR
        if vr == "SQ":
            self._clean_items(ds, element, place, depth)
        elif vr == "PN":
            self._dummy(ds, element, place, depth)
        elif vr == "UI":
            self._keep_uid(ds, element, place, depth)
        elif element.keyword == "PatientAge":
            self._keep_age(element, place)
        elif vr in TEXT_VRS:
            self._clean_text(element, place, all_of_it=vr in LONG_TEXT_VRS)
        elif self._is_bytes_with_a_name(element):
            self._replace(element, dummy(vr), "replaced", place)

    def _is_bytes_with_a_name(self, element: DataElement) -> bool:
        value = element.value
        if not isinstance(value, bytes) or element.keyword in _PIXELS:
            return False
        return self._text.known.holds(value.decode("latin-1"))

    def _keep_uid(self, ds: Dataset, element: DataElement, place: str, depth: int) -> None:
        """A class stays; whatever may be an instance is mapped, also where no table names it."""
        if any(word in element.keyword for word in _CLASSES):
            return
        values = [str(value) for value in _values(element)]
        if not all(value.startswith(_STANDARD_UIDS) for value in values):
            self._new_uid(ds, element, place, depth)

    def _keep_age(self, element: DataElement, place: str) -> None:
        text = str(element.value or "")
        if text.endswith("Y") and text[:-1].isdigit() and int(text[:-1]) > OLDEST_AGE:
            self._replace(element, f"0{OLDEST_AGE + 1}Y", "replaced", place)

    def _clean_text(self, element: DataElement, place: str, *, all_of_it: bool) -> None:
        """Clean a text that stays; of codes and labels a part would be nonsense, so all goes."""

        def cleaned(value: Any) -> str:
            text = "" if value is None else str(value)
            if element.VR == "CS" and text in STRUCTURAL:
                return text
            if all_of_it:
                return self._text.clean(text)[0]
            return dummy(element.VR) if self._text.known.holds(text) else text

        if element.is_empty:
            return
        before = [str(value) for value in _values(element)]
        after = [cleaned(value) for value in before]
        if after != before:
            self._replace(element, after if len(after) > 1 else after[0], "cleaned", place)

    def _replace(self, element: DataElement, value: Any, action: str, place: str) -> None:
        element.value = value
        self._actions.note(action, place)


def place_of(tag: BaseTag) -> str:
    """An attribute's name and tag, for a report."""
    return f"{keyword_for_tag(tag)} ({tag.group:04X},{tag.element:04X})"


def _values(element: DataElement) -> list[Any]:
    value = element.value
    return list(value) if element.VM > 1 else [value]


def _each(element: DataElement, change: Callable[[Any], Any]) -> Any:
    changed = [change(value) for value in _values(element)]
    return changed if len(changed) > 1 else changed[0]


def _make_anonymous(code: Dataset) -> None:
    """A code that says who somebody is becomes one that says nothing."""
    for tag in list(code.keys()):
        del code[tag]
    code.CodeValue, code.CodingSchemeDesignator = ANONYMOUS, "99OSLER"
    code.CodeMeaning = ANONYMOUS
