"""Classic DICOM against a tiny archive: found, got, moved, stored, broken off and resumed."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pynetdicom.association import Association

from osler.archive.classic import ClassicArchive, MoveTarget
from osler.archive.opened import open_archive
from osler.archive.pull import pull
from osler.archive.push import gather, push
from osler.archive.query import Query
from osler.archive.settings import LinkSettings
from osler.errors import ArchiveError, ArchiveUnreachableError, ServerSettingsError
from tests.archive.classic_archive import TinyClassicArchive
from tests.archive.studies import (
    OTHER_STUDY,
    STUDY,
    SYNTAXES,
    data_sets,
    make_instance,
    write_study,
)

pytestmark = pytest.mark.usefixtures("collected")

WHOLE_STUDY = Query(keys={"StudyInstanceUID": STUDY})


@pytest.fixture
def held(classic: TinyClassicArchive, tmp_path: Path) -> TinyClassicArchive:
    """Two studies of six instances each, of two patients."""
    for study, owner in ((STUDY, "P1"), (OTHER_STUDY, "P2")):
        paths = write_study(tmp_path / "held", study=study, syntaxes=SYNTAXES[:4], PatientID=owner)
        for path in paths:
            classic.add(path.read_bytes())
    return classic


def archive_at(classic: TinyClassicArchive, link: LinkSettings) -> ClassicArchive:
    archive = open_archive(classic.address, link)
    assert isinstance(archive, ClassicArchive)
    return archive


def held_data_sets(tmp_path: Path) -> dict[str, tuple[str, bytes]]:
    every = data_sets(tmp_path / "held")
    return {name: value for name, value in every.items() if name.startswith(STUDY)}


def test_an_echo(classic: TinyClassicArchive, link: LinkSettings) -> None:
    archive_at(classic, link).check()
    with pytest.raises(ArchiveUnreachableError, match=r"^TINY@127\.0\.0\.1:1: out of reach"):
        open_archive("TINY@127.0.0.1:1", link).check()


def test_c_get_gives_the_same_data_sets(
    held: TinyClassicArchive, link: LinkSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pulled = pull(archive_at(held, link), WHOLE_STUDY, out)
    assert (pulled.fetched, pulled.kept) == (6, 0)
    assert data_sets(out) == held_data_sets(tmp_path)
    held.asked.clear()
    assert pull(archive_at(held, link), WHOLE_STUDY, out).kept == 6
    assert held.asked == []


def test_a_broken_association_is_opened_again(
    held: TinyClassicArchive, link: LinkSettings, tmp_path: Path
) -> None:
    held.breaks_after = 2
    pulled = pull(archive_at(held, link), WHOLE_STUDY, tmp_path / "out")
    assert pulled.fetched == 6
    assert [len(uids) for uids in held.asked] == [3, 1, 3]  # what had come is not asked for again


def test_what_the_archive_does_not_send(
    held: TinyClassicArchive, link: LinkSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    archive = archive_at(held, link)
    wanted = archive.instances(STUDY, WHOLE_STUDY)
    lost = wanted[0].sop_uid
    data = held.files.pop(lost)
    archive.instances = lambda study_uid, query: wanted  # type: ignore[method-assign]
    with pytest.raises(
        ArchiveError, match=r"did not send 1 instances .*; 5 of 6 instances are"
    ) as error:
        pull(archive, WHOLE_STUDY, out)
    assert str(error.value).startswith(held.address)
    held.files[lost] = data
    held.asked.clear()
    assert pull(archive, WHOLE_STUDY, out).fetched == 1
    assert held.asked == [[lost]]


def test_c_move_sends_to_us(
    held: TinyClassicArchive, link: LinkSettings, tmp_path: Path, free_port: int
) -> None:
    held.destinations["OSLER"] = free_port
    for name in list(held.files):
        held.files[name] = make_instance(int(name.rpartition(".")[2]), SOPInstanceUID=name)
    target = MoveTarget(host="127.0.0.1", port=free_port)
    archive = open_archive(held.address, link, move=target)
    pulled = pull(archive, WHOLE_STUDY, tmp_path / "out")
    assert pulled.fetched == len(data_sets(tmp_path / "out")) == 12


def test_c_move_to_a_title_that_the_archive_does_not_know(
    held: TinyClassicArchive, link: LinkSettings, tmp_path: Path
) -> None:
    archive = open_archive(held.address, link, move=MoveTarget(host="127.0.0.1", port=0))
    with pytest.raises(ArchiveError, match=r"status A801 Move destination unknown"):
        pull(archive, WHOLE_STUDY, tmp_path / "out")


def test_c_move_to_a_port_that_is_taken(
    held: TinyClassicArchive, link: LinkSettings, tmp_path: Path
) -> None:
    port = int(held.address.rpartition(":")[2])
    archive = open_archive(held.address, link, move=MoveTarget(host="127.0.0.1", port=port))
    with pytest.raises(ServerSettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
        pull(archive, WHOLE_STUDY, tmp_path / "out")


def test_the_ways_to_ask(held: TinyClassicArchive, link: LinkSettings) -> None:
    archive = archive_at(held, link)
    (study,) = archive.studies(Query(keys={"PatientID": "P2"}))
    assert study.StudyInstanceUID == OTHER_STUDY
    of_series = Query(keys={"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.2"})
    assert {one.series_uid for one in archive.instances(STUDY, of_series)} == {f"{STUDY}.2"}
    assert archive.studies(Query(keys={"PatientID": "P3"})) == []
    held.search_status = 0xC001
    with pytest.raises(ArchiveError, match=r"refuses the search \(status C001\)"):
        archive.studies(WHOLE_STUDY)


def test_c_store_sends_the_same_data_sets(
    classic: TinyClassicArchive, link: LinkSettings, tmp_path: Path
) -> None:
    write_study(tmp_path / "in", syntaxes=SYNTAXES)
    for _ in range(2):
        pushed = push(archive_at(classic, link), gather([tmp_path / "in"]))
        assert pushed.instances == 6
    stored = tmp_path / "stored"
    stored.mkdir()
    for name, data in classic.files.items():
        (stored / name).write_bytes(data)
    assert data_sets(stored) == data_sets(tmp_path / "in")


def test_an_archive_that_goes_between_two_requests(
    classic: TinyClassicArchive,
    link: LinkSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_study(tmp_path, 3)
    send, sent = Association.send_c_store, []

    def going(self: Association, *args: Any) -> Any:
        sent.append(args)
        if len(sent) == 2:
            self.abort()
        return send(self, *args)

    monkeypatch.setattr(Association, "send_c_store", going)
    assert push(archive_at(classic, link), gather([tmp_path])).instances == 3
    assert len(sent) == 4


def test_a_file_whose_meta_information_says_too_little(
    classic: TinyClassicArchive, link: LinkSettings, tmp_path: Path
) -> None:
    write_study(tmp_path, 2)
    bare = tmp_path / "bare.dcm"
    data = make_instance(9)
    tag, end = data.index(b"\2\0\3\0UI"), data.index(b"\2\0\x10\0UI")
    bare.write_bytes(data[:tag] + data[end:])
    with pytest.raises(ArchiveError, match=r"^TINY@.* refuses .*bare\.dcm$"):
        push(archive_at(classic, link), gather([tmp_path]))
    assert len(classic.files) == 2


def test_a_kind_that_the_archive_does_not_take(
    classic: TinyClassicArchive, link: LinkSettings, tmp_path: Path
) -> None:
    write_study(tmp_path, 3)
    odd = tmp_path / "odd.dcm"
    odd.write_bytes(make_instance(9, SOPClassUID=uid.UID("1.2.840.10008.5.1.4.1.1.999")))
    with pytest.raises(ArchiveError, match=r"^TINY@.* refuses .*odd\.dcm$"):
        push(archive_at(classic, link), gather([tmp_path]))
    assert len(classic.files) == 3


def test_an_archive_that_does_not_know_us(link: LinkSettings, tmp_path: Path) -> None:
    archive = TinyClassicArchive()
    archive._entity.require_calling_aet = ["SOMEBODY"]
    with archive, pytest.raises(ArchiveError, match=r"refuses the association .*alling AE title"):
        archive_at(archive, link).check()
