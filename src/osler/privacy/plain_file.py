"""A file of plain text."""

from osler.errors import UnreadableFileError
from osler.privacy.actions import Actions
from osler.privacy.fhir_people import People
from osler.privacy.free_text import TextCleaner
from osler.privacy.profile import Profile
from osler.privacy.pseudonyms import Pseudonyms

_CONTROL = frozenset(range(32)) - set(b"\t\n\r\f")


def decode_plain(data: bytes) -> str:
    """The text of a file in UTF-8, UTF-16 or Windows' Western encoding.

    Raises:
        UnreadableFileError: bytes that are no text.
    """
    encodings: tuple[str, ...]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ("utf-16",)
    else:
        if not _CONTROL.isdisjoint(data):
            raise UnreadableFileError("neither DICOM nor FHIR nor plain text")
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UnreadableFileError("neither DICOM nor FHIR nor plain text")


def clean_plain(
    data: bytes, people: People, profile: Profile, pseudonyms: Pseudonyms, actions: Actions
) -> bytes:
    """De-identify a text of which nobody says whose it is: by everybody that the run knows.

    Dates move by a number of days of the text's own where there is not one patient only.

    Raises:
        UnreadableFileError: bytes that are no text.
    """
    text = decode_plain(data)
    only = next(iter(people.patients.values())).identity if len(people.patients) == 1 else text
    cleaner = TextCleaner(
        known=people.everyone(),
        retain_dates=profile.retain_dates,
        shift_days=pseudonyms.shift_days(only),
    )
    cleaned, counts = cleaner.clean(text)
    for kind, count in counts.items():
        actions.note("replaced", f"{kind.lower()} in text", count)
    return cleaned.encode()
