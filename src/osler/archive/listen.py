"""Receiving studies, and handing each on when nothing more has come of it for a while."""

import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext

from osler.archive.address import is_loopback
from osler.archive.child import read_instance
from osler.archive.instance import InstanceFile, is_uid
from osler.archive.receiver import receiving, writing_into
from osler.archive.settings import check_title
from osler.archive.store import InstanceStore, Placed
from osler.errors import ServerSettingsError

_INCOMING = ".incoming"
_PENDING = ".pending"
_TICK_S = 0.2
# A transfer that has written nothing for so long has been broken off.
_ABANDONED_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class ListenSettings:
    """Where to receive, from whom, and what then happens.

    Attributes:
        title: our AE title.
        host: beyond this machine only with `accepted_titles`.
        port: 0 takes a free one.
        accepted_titles: who may send; all where it is empty.
        quiet_s: a study is complete when nothing has come of it for so long.
        command: run with a study's folder behind it, when it is complete.
        timeout_s: the longest silence of a sender.
        tls: encrypts; senders may have to bring a certificate.
    """

    title: str = "OSLER"
    host: str = "127.0.0.1"
    port: int = 11112
    accepted_titles: tuple[str, ...] = ()
    quiet_s: float = 60.0
    command: str | None = None
    timeout_s: float = 60.0
    tls: SSLContext | None = None

    def __post_init__(self) -> None:
        """Refuse what no receiver starts with."""
        for title in (self.title, *self.accepted_titles):
            check_title(title)
        if not is_loopback(self.host) and not self.accepted_titles:
            raise ServerSettingsError(
                f"{self.host} can be reached from elsewhere: name the AE titles that may send"
            )
        if self.quiet_s <= 0 or self.timeout_s <= 0 or not 0 <= self.port < 1 << 16:
            raise ServerSettingsError("quiet period, timeout and port must be above 0")
        try:
            words = shlex.split(self.command or "true")
        except ValueError:
            words = []
        if not words:
            raise ServerSettingsError("the command to run is empty, or its quotes do not close")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that is complete.

    Attributes:
        folder: with a folder for each series.
        instances: how many have come since it was last handed on.
        exit_code: the command's; None where there is none.
    """

    folder: Path
    instances: int
    exit_code: int | None


class Listener:
    """A storage receiver over a folder.

    What comes is kept in the folder's ".incoming" until its study is complete, and survives there
    when the process ends; the next listener hands it on.

    Args:
        folder: where complete studies go, each into a folder of its UID.
        settings: where to listen, and for how long to wait.

    Attributes:
        port: where it listens, once it does.
    """

    def __init__(self, folder: Path, settings: ListenSettings) -> None:
        self._settings = settings
        self._complete = InstanceStore(folder)
        self._incoming = InstanceStore(folder / _INCOMING)
        self._pending = folder / _PENDING
        self._latest: dict[str, float] = {}
        # Between an instance's arrival and the handing on of its study.
        self._lock = threading.Lock()
        self._told = threading.Event()
        self.port = settings.port

    def tell_to_end(self) -> None:
        """End soon; to be called from any thread, or a signal's handler."""
        self._told.set()

    def listen(
        self,
        on_ready: Callable[[], object] = lambda: None,
        on_study: Callable[[Study], object] = lambda study: None,
    ) -> None:
        """Receive until told to end.

        Args:
            on_ready: called when senders can connect.
            on_study: called with each study that was handed on.

        Raises:
            ServerSettingsError: the address is not ours, or is taken.
            ArchiveError: another process writes to the folder.
        """
        settings = self._settings
        with self._complete.opened(), self._incoming.opened(), writing_into(self._incoming):
            self._pick_up()
            with receiving(
                settings.title,
                settings.host,
                settings.port,
                self._keep,
                accepted_titles=settings.accepted_titles,
                timeout_s=settings.timeout_s,
                tls=settings.tls,
            ) as self.port:
                on_ready()
                while not self._told.wait(_TICK_S):
                    while (study_uid := self._quiet_study()) is not None:
                        on_study(self._hand_on(study_uid))
                    self._incoming.remove_parts(_ABANDONED_S)

    def _pick_up(self) -> None:
        """Find what an earlier listener has left."""
        now = time.monotonic()
        self._pending.mkdir(exist_ok=True)
        for folder in (self._incoming.folder, self._pending):
            for path in folder.iterdir():
                if is_uid(path.name):
                    self._latest[path.name] = now

    def _keep(self, file: InstanceFile) -> Placed:
        with self._lock:
            if self._complete.holds(file.instance):
                return self._complete.place(file)
            self._latest[file.instance.study_uid] = time.monotonic()
            return self._incoming.place(file)

    def _quiet_study(self) -> str | None:
        before = time.monotonic() - self._settings.quiet_s
        with self._lock:
            return next((uid for uid, latest in self._latest.items() if latest <= before), None)

    def _hand_on(self, study_uid: str) -> Study:
        folder = self._complete.folder / study_uid
        pending = self._pending / study_uid
        with self._lock:
            # Should the process end before the command has, the next one runs it again.
            pending.touch()
            count = self._move(study_uid)
            del self._latest[study_uid]
        code = None
        if self._settings.command is not None:
            words = [*shlex.split(self._settings.command), str(folder)]
            code = _exit_code(words)
        if not code:
            pending.unlink()
        return Study(folder=folder, instances=count, exit_code=code)

    def _move(self, study_uid: str) -> int:
        """Move what has come of a study to where it is complete: at once, where it is new."""
        source = self._incoming.folder / study_uid
        files = sorted(source.rglob("*.dcm"))
        target = self._complete.folder / study_uid
        if files and not target.exists():
            source.replace(target)
            return len(files)
        for path in files:
            self._complete.place(read_instance(path))
        for series in [*source.glob("*"), source] if source.exists() else []:
            series.rmdir()
        return len(files)


def _exit_code(words: list[str]) -> int:
    """Run a command; what it prints goes to standard error, which is the log."""
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=2, check=False).returncode
    except OSError:
        return 127  # as a shell says of a command that is not there
