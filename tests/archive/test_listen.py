"""Receiving: a study is handed on once, when it is quiet, and never lost."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from osler.archive.listen import Listener, ListenSettings, Study
from osler.archive.opened import open_archive
from osler.archive.push import gather, push
from osler.archive.settings import LinkSettings, tls_of_client, tls_of_server
from osler.errors import ArchiveError, InputError, ServerSettingsError
from tests.archive.certificates import write_certificate
from tests.archive.studies import OTHER_STUDY, STUDY, data_sets, make_instance, write_study

pytestmark = pytest.mark.usefixtures("collected")

QUIET_S = 0.4


class Running:
    """A listener in a thread, and the studies that it has handed on."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = {"port": 0, "quiet_s": QUIET_S, **settings}
        self.listener = Listener(folder, ListenSettings(**given))
        self.studies: list[Study] = []
        self.ready, self.more = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        def handed_on(study: Study) -> None:
            self.studies.append(study)
            self.more.set()

        self.listener.listen(self.ready.set, handed_on)

    def wait_for(self, count: int) -> list[Study]:
        deadline = time.monotonic() + 20
        while len(self.studies) < count and time.monotonic() < deadline:
            self.more.wait(0.1)
            self.more.clear()
        assert len(self.studies) == count
        return self.studies

    def send(self, link: LinkSettings, *paths: Path) -> None:
        archive = open_archive(f"OSLER@127.0.0.1:{self.listener.port}", link)
        push(archive, gather(paths))


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Running]:
    run = Running(folder, **settings)
    thread = threading.Thread(target=run.run)
    thread.start()
    try:
        assert run.ready.wait(20)
        yield run
    finally:
        run.listener.tell_to_end()
        thread.join(20)
        assert not thread.is_alive()


def test_a_study_is_handed_on_when_it_is_quiet(link: LinkSettings, tmp_path: Path) -> None:
    write_study(tmp_path / "in", 4)
    write_study(tmp_path / "in", 2, study=OTHER_STUDY)
    out = tmp_path / "out"
    with running(out) as run:
        open_archive(f"OSLER@127.0.0.1:{run.listener.port}", link).check()
        run.send(link, tmp_path / "in")
        assert not (out / STUDY).exists()  # or nobody could tell that it is complete
        studies = sorted(run.wait_for(2), key=lambda study: str(study.folder))
    assert [(study.folder, study.instances) for study in studies] == [
        (out / STUDY, 4),
        (out / OTHER_STUDY, 2),
    ]
    assert data_sets(out) == data_sets(tmp_path / "in")
    left = {path.name for path in out.rglob("*") if path.is_file()} - {"lock"}
    assert left == {f"{name}.dcm" for name in data_sets(out)}


def test_a_duplicate_is_welcome_and_not_handed_on_again(link: LinkSettings, tmp_path: Path) -> None:
    write_study(tmp_path / "in", 3)
    out = tmp_path / "out"
    with running(out) as run:
        run.send(link, tmp_path / "in")
        run.send(link, tmp_path / "in")
        run.wait_for(1)
        run.send(link, tmp_path / "in")
        time.sleep(2 * QUIET_S)
        assert len(run.studies) == 1
        # What comes late is a reason to hand the study on once more.
        (tmp_path / "late.dcm").write_bytes(make_instance(9))
        run.send(link, tmp_path / "late.dcm", tmp_path / "in")
        assert run.wait_for(2)[1].instances == 1
    assert len(data_sets(out)) == 4


def test_another_data_set_of_a_known_uid_changes_nothing(
    link: LinkSettings, tmp_path: Path
) -> None:
    (tmp_path / "a.dcm").write_bytes(make_instance(1))
    (tmp_path / "b.dcm").write_bytes(make_instance(1, PatientID="P9"))
    out = tmp_path / "out"
    with running(out) as run:
        run.send(link, tmp_path / "a.dcm")
        run.wait_for(1)
        run.send(link, tmp_path / "b.dcm")
    assert data_sets(out) == data_sets(tmp_path / "a.dcm")


def test_the_command_gets_the_folder(link: LinkSettings, tmp_path: Path) -> None:
    write_study(tmp_path / "in", 2)
    out, log = tmp_path / "out", tmp_path / "log of it"
    with running(out, command=f'sh -c \'echo "$0" >> "{log}"\'') as run:
        run.send(link, tmp_path / "in")
        assert run.wait_for(1)[0].exit_code == 0
    assert log.read_text() == f"{out / STUDY}\n"


def test_a_command_that_failed_runs_again_at_the_next_start(
    link: LinkSettings, tmp_path: Path
) -> None:
    write_study(tmp_path / "in", 2)
    out = tmp_path / "out"
    with running(out, command="false") as run:
        run.send(link, tmp_path / "in")
        assert run.wait_for(1)[0].exit_code == 1
    with running(out, command="/no/such/command") as run:
        assert run.wait_for(1)[0].exit_code == 127
    with running(out, command="true") as run:
        assert run.wait_for(1)[0] == Study(folder=out / STUDY, instances=0, exit_code=0)
    with running(out, command="true") as run:
        time.sleep(2 * QUIET_S)
        assert run.studies == []


def test_what_came_before_the_end_is_handed_on_by_the_next(
    link: LinkSettings, tmp_path: Path
) -> None:
    write_study(tmp_path / "in", 3)
    out = tmp_path / "out"
    with running(out, quiet_s=100) as run:
        run.send(link, tmp_path / "in")
    assert not (out / STUDY).exists()
    with running(out) as run:
        assert run.wait_for(1)[0].instances == 3
    assert data_sets(out) == data_sets(tmp_path / "in")


def test_one_listener_a_folder(tmp_path: Path) -> None:
    with running(tmp_path), pytest.raises(ArchiveError, match="another osler writes there"):
        Listener(tmp_path, ListenSettings(port=0)).listen()


def test_only_those_who_are_named_may_send(link: LinkSettings, tmp_path: Path) -> None:
    write_study(tmp_path / "in", 1)
    with running(tmp_path / "out", accepted_titles=("CT1",)) as run:
        with pytest.raises(ArchiveError, match="refuses the association"):
            run.send(link, tmp_path / "in")
        run.send(LinkSettings(title="CT1", timeout_s=5), tmp_path / "in")
        run.wait_for(1)


def test_encrypted_and_with_certificates_on_both_sides(link: LinkSettings, tmp_path: Path) -> None:
    write_study(tmp_path / "in", 2)
    cert, key = write_certificate(tmp_path)
    server = tls_of_server(cert, key, ca=cert)
    with running(tmp_path / "out", tls=server) as run:
        with pytest.raises(ArchiveError):
            run.send(LinkSettings(timeout_s=1, attempts=1), tmp_path / "in")
        client = tls_of_client(ca=cert, cert=cert, key=key)
        run.send(LinkSettings(timeout_s=5, tls=client), tmp_path / "in")
        assert run.wait_for(1)[0].instances == 2
    assert client.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(InputError, match="no usable PEM"):
        tls_of_server(tmp_path / "in" / f"{STUDY}-1.dcm")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"host": "0.0.0.0"}, "name the AE titles that may send"),
        ({"quiet_s": 0}, "must be above 0"),
        ({"command": "echo 'x"}, "quotes do not close"),
        ({"command": " "}, "is empty"),
    ],
)
def test_settings_that_no_listener_starts_with(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ServerSettingsError, match=reason):
        ListenSettings(**settings)
    assert ListenSettings().host == "127.0.0.1"
