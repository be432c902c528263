"""A storage receiver of classic DICOM (C-STORE, C-ECHO): instances that come, onto the disk."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLContext
from typing import Any, cast

from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from osler.archive.association import HURRY, STORED_SYNTAXES
from osler.archive.child import read_instance
from osler.archive.instance import InstanceFile
from osler.archive.store import InstanceStore, Placed
from osler.errors import InputError, ServerSettingsError

# PS3.4 table B.2-1 and PS3.7 annex C.
SUCCESS = 0x0000
DUPLICATE = 0x0111
NOT_AUTHORISED = 0x0124
_OUT_OF_RESOURCES = 0xA700
_NOT_AS_ANNOUNCED = 0xA900
_CANNOT_UNDERSTAND = 0xC000

# What becomes of a file that came: placed, or None where nobody wants it.
Keep = Callable[[InstanceFile], Placed | None]


def answer_to_store(event: Event, keep: Keep) -> int:
    """Take in one instance.

    Args:
        event: pynetdicom's, whose file is written.
        keep: places it.

    Returns:
        The status to answer with.
    """
    part = Path(event.dataset_path)
    try:
        file = read_instance(part)
        request = cast(C_STORE, event.request)
        announced = (str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID))
        if announced != (file.instance.sop_uid, file.instance.sop_class_uid):
            return _NOT_AS_ANNOUNCED
        placed = keep(file)
    except InputError:
        return _CANNOT_UNDERSTAND
    except OSError:
        return _OUT_OF_RESOURCES
    finally:
        part.unlink(missing_ok=True)
    if placed is None:
        return NOT_AUTHORISED
    return DUPLICATE if placed == "conflict" else SUCCESS


@contextmanager
def writing_into(store: InstanceStore) -> Iterator[None]:
    """Have pynetdicom write what comes where it can be renamed from, and is cleaned up.

    It would use the system's place for temporary files: another disk, and open to forget there
    half an image of a patient whose transfer broke off.
    """
    before = tempfile.tempdir
    tempfile.tempdir = str(store.parts)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def receiving(
    title: str,
    host: str,
    port: int,
    keep: Keep,
    *,
    accepted_titles: Sequence[str] = (),
    timeout_s: float = 60.0,
    tls: SSLContext | None = None,
) -> Iterator[int]:
    """Receive instances in threads of their own.

    Args:
        title: our AE title.
        host: the address to listen on.
        port: 0 takes a free one.
        keep: called by several threads at a time.
        accepted_titles: who may call; all where it is empty.
        timeout_s: the longest silence of a caller.
        tls: encrypts.

    Returns:
        The port.

    Raises:
        ServerSettingsError: the address is not ours, or is taken.
    """
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_s
    entity.require_calling_aet = list(accepted_titles)
    entity.add_supported_context(Verification)
    for storage in AllStoragePresentationContexts:
        entity.add_supported_context(UID(str(storage.abstract_syntax)), list(STORED_SYNTAXES))
    handlers: list[Any] = [*HURRY, (evt.EVT_C_STORE, answer_to_store, [keep])]
    try:
        server = entity.start_server(
            (host, port), block=False, evt_handlers=handlers, ssl_context=tls
        )
    except OSError as error:
        raise ServerSettingsError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    assert server is not None  # it does not block
    try:
        yield int(server.server_address[1])
    finally:
        entity.shutdown()
