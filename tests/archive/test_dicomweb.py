"""DICOMweb against a tiny service: pulled and pushed, interrupted and resumed, refused."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from osler.archive.address import WebAddress
from osler.archive.dicomweb import WebArchive
from osler.archive.opened import open_archive
from osler.archive.pull import Pulled, pull
from osler.archive.push import gather, push
from osler.archive.query import Query
from osler.archive.settings import LinkSettings
from osler.archive.store import InstanceStore
from osler.errors import ArchiveError, ArchiveUnreachableError, InputError, UnreadableFileError
from tests.archive.studies import (
    OTHER_STUDY,
    STUDY,
    SYNTAXES,
    data_sets,
    make_instance,
    write_study,
)
from tests.archive.web_archive import TinyWebArchive

WHOLE_STUDY = Query(keys={"StudyInstanceUID": STUDY})


@pytest.fixture
def held(web: TinyWebArchive, tmp_path: Path) -> TinyWebArchive:
    """Two studies of six instances each, of two patients."""
    for study, owner in ((STUDY, "P1"), (OTHER_STUDY, "P2")):
        paths = write_study(
            tmp_path / study,
            study=study,
            syntaxes=SYNTAXES,
            PatientID=owner,
            AccessionNumber=owner,
        )
        for path in paths:
            web.add(path.read_bytes())
    return web


def fetch(
    web: TinyWebArchive, link: LinkSettings, out: Path, query: Query = WHOLE_STUDY, **more: Any
) -> Pulled:
    archive = open_archive(web.url, link)
    try:
        return pull(archive, query, out, **more)
    finally:
        archive.close()


def test_a_pull_gives_the_same_files(
    held: TinyWebArchive, link: LinkSettings, tmp_path: Path
) -> None:
    seen = []
    out = tmp_path / "out"
    pulled = fetch(held, link, out, progress=lambda *step: seen.append(step))
    assert pulled == Pulled(folder=out, studies=(STUDY,), fetched=6, kept=0)
    assert seen == [(done, 6) for done in range(7)]
    files = {path.stem: path.read_bytes() for path in out.rglob("*.dcm")}
    assert files == {uid: data for uid, data in held.files.items() if uid.startswith(STUDY)}


def test_a_second_pull_fetches_nothing_but_what_is_damaged(
    held: TinyWebArchive, link: LinkSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fetch(held, link, out)
    held.requests.clear()
    assert fetch(held, link, out).kept == 6
    assert held.fetched == 0
    cut, gone = sorted(out.rglob("*.dcm"))[:2]
    cut.write_bytes(cut.read_bytes()[:-20])
    gone.unlink()
    again = fetch(held, link, out)
    assert (again.fetched, again.kept, held.fetched) == (2, 4, 2)
    assert cut.read_bytes() == held.files[cut.stem]


def test_an_interrupted_pull_goes_on(
    held: TinyWebArchive, link: LinkSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    held.fetches_left = 4
    with pytest.raises(ArchiveUnreachableError, match="4 of 6 instances are here") as error:
        fetch(held, link, out)
    assert held.url in str(error.value)
    held.fetches_left = None
    held.requests.clear()
    pulled = fetch(held, link, out)
    assert (pulled.fetched, pulled.kept, held.fetched) == (2, 4, 2)


def test_a_ctrl_c_leaves_no_half_file(
    held: TinyWebArchive, link: LinkSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def interrupt(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(held, link, out, progress=interrupt)
    assert len(list(out.rglob("*.dcm"))) == 3
    assert [part.name for part in (out / ".parts").iterdir()] == ["lock"]
    assert fetch(held, link, out).fetched == 3


def test_what_passes_is_tried_again(
    held: TinyWebArchive, link: LinkSettings, tmp_path: Path
) -> None:
    held.statuses = [503, 429]
    held.cut = 2
    assert fetch(held, link, tmp_path / "out").fetched == 6
    assert held.fetched == 8


@pytest.mark.parametrize(
    ("status", "reason", "tries"),
    [
        (500, "answers 500 Internal Server Error", 3),
        (400, "answers 400 Bad Request", 1),
        (401, r"needs a token \(401\)", 1),
        (302, "redirects elsewhere", 1),
    ],
)
def test_refusals_name_the_host_and_never_quote(
    held: TinyWebArchive, link: LinkSettings, tmp_path: Path, status: int, reason: str, tries: int
) -> None:
    held.statuses = [status] * 9
    with pytest.raises(ArchiveError, match=reason) as error:
        fetch(held, link, tmp_path / "out")
    assert str(error.value).startswith(held.url)
    assert "Nobody" not in str(error.value)
    assert len(held.requests) == tries


def test_a_token(held: TinyWebArchive, tmp_path: Path) -> None:
    held.token = "secret"
    right = LinkSettings(token="secret", attempts=1)
    assert fetch(held, right, tmp_path / "out").fetched == 6
    wrong = LinkSettings(token="other", attempts=1)
    with pytest.raises(ArchiveError, match="refuses the token") as error:
        fetch(held, wrong, tmp_path / "out")
    assert "other" not in str(error.value)


def test_nobody_is_there(link: LinkSettings, tmp_path: Path, web: TinyWebArchive) -> None:
    gone = TinyWebArchive()
    gone.url = "http://127.0.0.1:1/dicom-web"
    with pytest.raises(ArchiveUnreachableError, match=r"127\.0\.0\.1:1/dicom-web: out of reach"):
        fetch(gone, link, tmp_path)


def test_lists_longer_than_a_page(held: TinyWebArchive, link: LinkSettings, tmp_path: Path) -> None:
    held.page = 2
    assert fetch(held, link, tmp_path / "out").fetched == 6


def test_other_ways_to_ask(held: TinyWebArchive, link: LinkSettings, tmp_path: Path) -> None:
    for number, keys in enumerate(({"PatientID": "P2"}, {"AccessionNumber": "P2"})):
        out = tmp_path / str(number)
        assert fetch(held, link, out, Query(keys=keys)).studies == (OTHER_STUDY,)
    series = Query(keys={"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1"})
    assert fetch(held, link, tmp_path / "series", series).fetched == 3
    with pytest.raises(ArchiveError, match="has nothing that matches"):
        fetch(held, link, tmp_path / "none", Query(keys={"PatientID": "P3"}))


def test_a_service_that_ignores_keys_does_not_bring_other_patients(
    held: TinyWebArchive, link: LinkSettings, tmp_path: Path
) -> None:
    held.ignores_keys = True
    archive = open_archive(held.url, link)
    studies = archive.studies(Query(keys={"PatientID": "P2"}))
    archive.close()
    assert [study.StudyInstanceUID for study in studies] == [OTHER_STUDY]


def test_another_instance_than_was_asked_for(
    held: TinyWebArchive, link: LinkSettings, tmp_path: Path
) -> None:
    first, second = sorted(held.files)[:2]
    archive = open_archive(held.url, link)
    wanted = archive.instances(STUDY, WHOLE_STUDY)
    archive.close()
    for answer, reason in (
        (held.files[second], "sends another instance"),
        (b"hello", "something else than a DICOM file"),
    ):
        transport = httpx2.MockTransport(
            lambda request, answer=answer: httpx2.Response(
                200, content=answer, headers={"content-type": "application/dicom"}
            )
        )
        wrong = WebArchive(WebAddress(base="http://pacs"), link, transport=transport)
        store = InstanceStore(tmp_path / "store")
        asked = [instance for instance in wanted if instance.sop_uid == first]
        with store.opened(), pytest.raises(ArchiveError, match=f"^http://pacs: .*{reason}"):
            wrong.fetch(asked, store, lambda done: None)
        assert not list(store.folder.rglob("*.dcm"))


@pytest.mark.parametrize("body", [b"<html>", b"[1, 2]", b"{}", b'{"a": ', b'[{"0020000D": 7}]'])
def test_what_is_no_dicomweb(link: LinkSettings, body: bytes) -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=body))
    archive = WebArchive(WebAddress(base="http://pacs"), link, transport=transport)
    with pytest.raises(ArchiveError, match=r"^http://pacs: answers with"):
        archive.studies(WHOLE_STUDY)


def test_a_push_sends_the_same_bytes_and_duplicates_are_welcome(
    web: TinyWebArchive, link: LinkSettings, tmp_path: Path
) -> None:
    paths = write_study(tmp_path / "in", 60, syntaxes=SYNTAXES)
    (tmp_path / "in" / "notes.txt").write_text("not DICOM")
    (tmp_path / "in" / "DICOMDIR").write_bytes(make_instance(1, StudyInstanceUID=""))
    archive = open_archive(web.url, link)
    for _ in range(2):
        pushed = push(archive, gather([tmp_path / "in"]))
        assert (pushed.instances, pushed.studies) == (60, (STUDY,))
    archive.close()
    assert sorted(web.files.values()) == sorted(path.read_bytes() for path in paths)
    assert web.requests == ["POST /dicom-web/studies"] * 4  # fifty and ten, twice


def test_a_push_that_is_refused_in_part(
    web: TinyWebArchive, link: LinkSettings, tmp_path: Path
) -> None:
    write_study(tmp_path / "in", 60)
    files = gather([tmp_path / "in"])
    web.refused = {files[3].instance.sop_uid, files[55].instance.sop_uid}
    archive = open_archive(web.url, link)
    with pytest.raises(ArchiveError, match=rf"refuses .*{files[3].path.name} and 1 more"):
        push(archive, files)
    archive.close()
    assert len(web.files) == 58


def test_a_push_is_tried_again(web: TinyWebArchive, link: LinkSettings, tmp_path: Path) -> None:
    write_study(tmp_path / "in", 3)
    web.statuses = [503]
    archive = open_archive(web.url, link)
    push(archive, gather([tmp_path / "in"]))
    archive.close()
    assert data_sets(tmp_path / "in").keys() == web.files.keys()


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="there is no DICOM file"):
        gather([tmp_path])
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UnreadableFileError, match=r"a\.txt: not a DICOM file"):
        gather([tmp_path / "a.txt"])
    with pytest.raises(InputError, match=r"b\.dcm: there is no such file"):
        gather([tmp_path / "b.dcm"])
