"""An association with an application entity of classic DICOM (PS3.8), opened and ended."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext

from osler.archive.address import ClassicAddress
from osler.archive.settings import LinkSettings
from osler.errors import ArchiveError, ArchiveUnreachableError

# Whoever turns logging on should not find patients in it.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
# Instances go to and from the disk as they are, and no larger one fills the memory.
_config.STORE_SEND_CHUNKED_DATASET = True
_config.STORE_RECV_CHUNKED_DATASET = True

# First what every program can read: the order is that of our preference.
STORED_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    *(
        uid
        for uid in AllTransferSyntaxes
        if uid not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ),
)
# PS3.8 9.3.2.2: odd numbers of one byte.
MOST_CONTEXTS = 128

_REJECTED_TRANSIENT = 2


def _hurry(event: Event) -> None:
    connection = event.assoc.dul.socket
    if connection is None or connection.socket is None:
        return
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_QUICKACK"):
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


# Messages go in small pieces, of which the second waits for the first one's receipt, which the
# other side puts off: a tenth of a second an instance. So neither side of ours waits or puts off;
# the system forgets the latter, hence at every event.
HURRY = tuple((kind, _hurry) for kind in (evt.EVT_CONN_OPEN, evt.EVT_DATA_SENT, evt.EVT_DATA_RECV))


@contextmanager
def associated(
    address: ClassicAddress,
    settings: LinkSettings,
    contexts: Sequence[PresentationContext],
    *,
    negotiated: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    """Open an association, and release it; after an error, abort it.

    Args:
        address: with whom.
        settings: patience, our title, encryption.
        contexts: what to propose, at most `MOST_CONTEXTS`.
        negotiated: items of extended negotiation, such as roles.
        handlers: pynetdicom's pairs of event and function.

    Raises:
        ArchiveUnreachableError: nobody is there, or who is has no time.
        ArchiveError: the association is refused, or nothing that was proposed is accepted.
    """
    entity = AE(ae_title=settings.title)
    entity.acse_timeout = entity.dimse_timeout = settings.timeout_s
    entity.network_timeout = entity.connection_timeout = settings.timeout_s
    entity.requested_contexts = list(contexts)
    connected: list[Any] = []
    association = entity.associate(
        address.host,
        address.port,
        ae_title=address.title,
        ext_neg=list(negotiated),
        evt_handlers=[(evt.EVT_CONN_OPEN, connected.append), *HURRY, *handlers],
        tls_args=None if settings.tls is None else (settings.tls, address.host),
    )
    if not association.is_established:
        raise _refusal(address, association, is_connected=bool(connected))
    try:
        yield association
    except RuntimeError:  # pynetdicom's, where the other end has gone between two requests
        if association.is_established:
            association.abort()
            raise
        raise _broken(address) from None
    except BaseException:
        association.abort()
        raise
    association.release()


def context(sop_class: str, *syntaxes: str) -> PresentationContext:
    """A presentation context; without syntaxes, in those that every entity speaks."""
    proposed = syntaxes or STORED_SYNTAXES[:2]
    return build_context(UID(sop_class), [UID(syntax) for syntax in proposed])


def _refusal(
    address: ClassicAddress, association: Association, *, is_connected: bool
) -> ArchiveError:
    if not is_connected:
        return ArchiveUnreachableError(f"{address}: out of reach")
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        reason = f"{address}: refuses the association ({answer.reason_str})"
        if answer.result == _REJECTED_TRANSIENT:
            return ArchiveUnreachableError(reason)
        return ArchiveError(reason)
    if association.rejected_contexts and not association.accepted_contexts:
        return ArchiveError(f"{address}: offers none of the services that were asked for")
    return _broken(address)


def _broken(address: ClassicAddress) -> ArchiveUnreachableError:
    return ArchiveUnreachableError(f"{address}: broke off, or did not answer in time")
