"""The images that a draft is about: who is shown, in which study, and what refers to them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.sequence import Sequence as DicomSequence

from osler.archive.child import read_attributes
from osler.archive.instance import Instance
from osler.archive.results.attributes import STUDY, Attributes
from osler.archive.results.draft import Draft
from osler.errors import InputError

# To be there, if empty (type 2).
_ALWAYS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", *STUDY[:6])


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The images of one draft, all of one patient.

    Attributes:
        current: of the latest study, which results belong to.
        instances: all of them, in reading order.
    """

    current: Dataset
    instances: tuple[Instance, ...]

    @property
    def here(self) -> list[Instance]:
        """Those of the results' own study."""
        return [one for one in self.instances if one.study_uid == self.current.StudyInstanceUID]

    @property
    def elsewhere(self) -> list[Instance]:
        """Those of other studies, such as a prior one."""
        return [one for one in self.instances if one.study_uid != self.current.StudyInstanceUID]


def sources_of(draft: Draft, paths: Iterable[Path]) -> Sources:
    """Find the very files that a draft was made from.

    Args:
        draft: has their digests.
        paths: DICOM files, and folders of them; those that the draft was not made from are
            passed over.

    Raises:
        InputError: a file of the draft's is not among them, or they show more than one patient.
        DicomError: one of them is malformed.
    """
    wanted = dict.fromkeys(draft.input_sha256)
    found: dict[str, tuple[Instance, Dataset]] = {}
    for path in _files(paths):
        if (digest := _sha256(path)) in wanted:
            instance, attributes = read_attributes(path)
            found[digest] = instance, _data_set(attributes)
    if missing := [digest for digest in wanted if digest not in found]:
        count = f"{len(missing)} of {len(wanted)} files"
        raise InputError(f"{count} that the answer was made from are not among the sources")
    headers = [found[digest][1] for digest in wanted]
    if len({(one.get("PatientID"), one.get("IssuerOfPatientID")) for one in headers}) > 1:
        raise InputError("the sources are of more than one patient")
    current = max(headers, key=lambda one: (str(one.StudyDate or ""), str(one.StudyTime or "")))
    return Sources(current=current, instances=tuple(found[digest][0] for digest in wanted))


def _data_set(attributes: Attributes) -> Dataset:
    """Values of any kind: what breaks the rules is taken over as it is, and not warned of."""
    ds = Dataset()
    for keyword, values in (dict.fromkeys(_ALWAYS, ()) | attributes).items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        value = list(values) if len(values) > 1 else "".join(values) or None
        ds.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE))
    return ds


def references(instances: Sequence[Instance], *, purpose: Dataset | None = None) -> DicomSequence:
    """References to instances by class and UID (PS3.3 table 10-11).

    Args:
        instances: which.
        purpose: a code that says what for.
    """
    items = []
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = instance.sop_class_uid
        item.ReferencedSOPInstanceUID = instance.sop_uid
        if purpose is not None:
            item.PurposeOfReferenceCodeSequence = [purpose]
        items.append(item)
    return DicomSequence(items)


def evidence(instances: Sequence[Instance]) -> DicomSequence:
    """References below their series, below their studies (PS3.3 table C.17-3)."""
    return _by_study(instances, "ReferencedSOPSequence")


def other_studies(instances: Sequence[Instance]) -> DicomSequence:
    """The same in the words of another module (PS3.3 C.12.2)."""
    return _by_study(instances, "ReferencedInstanceSequence")


def same_study(instances: Sequence[Instance]) -> DicomSequence:
    """References to instances of one study below their series (PS3.3 C.12.2)."""
    return _by_series(instances, "ReferencedInstanceSequence")


def _by_study(instances: Sequence[Instance], keyword: str) -> DicomSequence:
    items = []
    for study_uid in dict.fromkeys(instance.study_uid for instance in instances):
        item = Dataset()
        item.StudyInstanceUID = study_uid
        of_study = [one for one in instances if one.study_uid == study_uid]
        item.ReferencedSeriesSequence = _by_series(of_study, keyword)
        items.append(item)
    return DicomSequence(items)


def _by_series(instances: Sequence[Instance], keyword: str) -> DicomSequence:
    items = []
    for series_uid in dict.fromkeys(instance.series_uid for instance in instances):
        item = Dataset()
        item.SeriesInstanceUID = series_uid
        of_series = [one for one in instances if one.series_uid == series_uid]
        setattr(item, keyword, references(of_series))
        items.append(item)
    return DicomSequence(items)


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file())
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path}: there is no such file")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
