"""What is asked for: studies by their attributes, and which of their series."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydicom import Dataset

from osler.errors import InputError

# An archive ignores what it cannot match at a level and answers with everything; so only keys
# that it must know, or is commonly able to match, are let through. Source: PS3.4 C.6.2.1.
STUDY_KEYS = frozenset(
    """
    StudyInstanceUID PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID
    StudyDate StudyTime StudyDescription ModalitiesInStudy ReferringPhysicianName
    """.split()
)
SERIES_KEYS = frozenset(
    "SeriesInstanceUID Modality SeriesNumber SeriesDescription BodyPartExamined".split()
)

# What must match letter by letter where it holds no wildcard, whatever the archive thinks.
_EXACT = ("StudyInstanceUID", "PatientID", "AccessionNumber", "SeriesInstanceUID", "Modality")


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question to an archive.

    Attributes:
        keys: DICOM keyword to value, with the wildcards * and ? and, for dates, ranges such as
            "20240101-20240131"; at least one of `STUDY_KEYS`.
    """

    keys: Mapping[str, str] = field(repr=False)  # they name a patient

    def __post_init__(self) -> None:
        """Refuse a question that would be answered with the whole archive."""
        for key, value in self.keys.items():
            if key not in STUDY_KEYS | SERIES_KEYS:
                known = ", ".join(sorted(STUDY_KEYS | SERIES_KEYS))
                raise InputError(f"query: {key!r} is not one of {known}")
            if not value or "\\" in value or not value.isprintable():
                raise InputError(f"query: the value of {key} is empty, or not one line of text")
        if not self.of_studies:
            raise InputError("query: name a study, a patient, an accession number or another key")
        if all(set(value) <= set("*?- ") for value in self.of_studies.values()):
            raise InputError("query: that would be all that the archive has")

    @property
    def of_studies(self) -> dict[str, str]:
        """The keys of the study level."""
        return {key: value for key, value in self.keys.items() if key in STUDY_KEYS}

    @property
    def of_series(self) -> dict[str, str]:
        """The keys of the series level."""
        return {key: value for key, value in self.keys.items() if key in SERIES_KEYS}


def agrees(found: Dataset, keys: Mapping[str, str]) -> bool:
    """Whether an archive's answer is one to what was asked.

    Archives exist that ignore a key rather than match it. What then came would be other
    patients' images.

    Args:
        found: one answer.
        keys: of the level that was asked.
    """
    return all(
        str(found.get(key) or "").strip() == keys[key].strip()
        for key in _EXACT
        if key in keys and not set("*?") & set(keys[key])
    )
