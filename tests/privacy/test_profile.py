"""Table E.1-1 and its options."""

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from osler.privacy.profile import Action, Profile, standard_tags


def action(keyword: str, profile: Profile | None = None) -> Action:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return (profile or Profile()).action(tag, dictionary_VR(tag))


def test_the_whole_table_is_there() -> None:
    # 655 rows of edition 2026c, of which three are of repeating groups
    assert len(standard_tags()) == 652


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("PatientName", Action.EMPTY),
        ("StudyDescription", Action.REMOVE),
        ("SOPInstanceUID", Action.NEW_UID),
        ("StudyDate", Action.EMPTY),
        ("ContentDate", Action.DUMMY),  # Z/D: a type 1 must have a value
        ("AcquisitionDate", Action.EMPTY),  # X/Z
        ("InstitutionName", Action.DUMMY),  # X/Z/D
        ("ReferencedImageSequence", Action.CLEAN_ITEMS),  # X/Z/U*
        ("ContentSequence", Action.CLEAN_ITEMS),
        ("PatientSex", Action.EMPTY),
        ("Rows", Action.KEEP),
        ("Modality", Action.KEEP),
    ],
)
def test_the_basic_profile(keyword: str, expected: Action) -> None:
    assert action(keyword) is expected


@pytest.mark.parametrize(
    "keyword", ["StudyDate", "ContentDate", "AcquisitionDateTime", "StudyTime"]
)
def test_dates_are_retained(keyword: str) -> None:
    assert action(keyword, Profile(retain_dates="full")) is Action.KEEP
    assert action(keyword, Profile(retain_dates="modified")) is Action.SHIFT


@pytest.mark.parametrize("dates", ["none", "modified", "full"])
def test_a_birth_date_is_not(dates: str) -> None:
    assert action("PatientBirthDate", Profile(retain_dates=dates)) is Action.EMPTY  # type: ignore[arg-type]


@pytest.mark.parametrize("keyword", ["PatientSex", "PatientAge", "PatientSize", "PatientWeight"])
def test_characteristics_are_retained(keyword: str) -> None:
    assert action(keyword, Profile(retain_characteristics=True)) is Action.KEEP


def test_what_may_hold_words_of_a_characteristic_is_cleaned() -> None:
    assert action("Allergies", Profile(retain_characteristics=True)) is Action.CLEAN


def test_the_codes_say_what_was_asked_for() -> None:
    assert [code for code, _ in Profile().codes] == ["113100", "113101", "113104"]
    all_of_it = Profile(retain_dates="modified", retain_characteristics=True, clean_pixels=False)
    assert [code for code, _ in all_of_it.codes] == ["113100", "113104", "113107", "113108"]
