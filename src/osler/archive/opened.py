"""From an address to the archive behind it."""

from osler.archive.address import WebAddress, archive_address
from osler.archive.classic import ClassicArchive, MoveTarget
from osler.archive.dicomweb import WebArchive
from osler.archive.settings import LinkSettings
from osler.errors import InputError


def open_archive(
    address: str, settings: LinkSettings, *, move: MoveTarget | None = None
) -> WebArchive | ClassicArchive:
    """The archive at an address; nothing is sent yet.

    Args:
        address: a DICOMweb URL, or "TITLE@host:port".
        settings: patience, names, keys.
        move: fetch from classic archives with C-MOVE, which sends to here.

    Raises:
        InputError: no such address, or settings that its protocol has no place for.
    """
    where = archive_address(address)
    if isinstance(where, WebAddress):
        if move is not None:
            raise InputError("archive: C-MOVE is of classic DICOM, not of DICOMweb")
        return WebArchive(where, settings)
    if settings.token is not None:
        raise InputError("archive: classic DICOM knows no tokens")
    return ClassicArchive(where, settings, move=move)
