"""Against a real archive: round trips, a thousand instances, interruptions, duplicates."""

import shutil
import signal
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import dcmread, uid

from osler.archive.classic import ClassicArchive, MoveTarget
from osler.archive.dicomweb import WebArchive
from osler.archive.opened import open_archive
from osler.archive.pull import pull
from osler.archive.push import gather, push
from osler.archive.query import Query
from osler.archive.results.write import write_results
from osler.archive.settings import LinkSettings
from osler.cli import main
from osler.errors import ArchiveUnreachableError
from osler.testing.series import make_series, slices
from tests.archive.orthanc import Orthanc, is_installed
from tests.archive.studies import STUDY, SYNTAXES, data_sets, write_study
from tests.archive.test_results import write_answer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_installed(), reason="no Orthanc (tools/archive_tools.sh)"),
]

WHOLE_STUDY = Query(keys={"StudyInstanceUID": STUDY})
THOUSAND = 1000

Open = Callable[[str], WebArchive | ClassicArchive]


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    with Orthanc(tmp_path / "orthanc") as archive:
        yield archive


@pytest.fixture
def opened(orthanc: Orthanc) -> Iterator[Open]:
    """Opens the archive by one of its three ways."""
    link = LinkSettings(timeout_s=30, attempts=3, wait_s=0.1)
    target = MoveTarget(host="127.0.0.1", port=orthanc.move_port)
    ways = {
        "web": open_archive(orthanc.url, link),
        "get": open_archive(orthanc.address, link),
        "move": open_archive(orthanc.address, link, move=target),
    }
    yield ways.__getitem__
    for archive in ways.values():
        archive.close()


def contents(*paths: Path) -> dict[str, tuple[str, bytes]]:
    """Data sets; deflated ones inflated, as classic archives deflate them anew."""
    return {
        name: (syntax, zlib.decompress(data, -zlib.MAX_WBITS))
        if syntax == uid.DeflatedExplicitVRLittleEndian
        else (syntax, data)
        for name, (syntax, data) in data_sets(*paths).items()
    }


@pytest.mark.parametrize("back", ["web", "get", "move"])
@pytest.mark.parametrize("there", ["web", "get"])
def test_a_round_trip_is_identical(opened: Open, tmp_path: Path, there: str, back: str) -> None:
    write_study(tmp_path / "in", 12, syntaxes=SYNTAXES)
    opened(there).check()
    push(opened(there), gather([tmp_path / "in"]))
    pulled = pull(opened(back), WHOLE_STUDY, tmp_path / "out")
    assert pulled.fetched == 12
    assert contents(tmp_path / "out") == contents(tmp_path / "in")
    if there == back == "web":
        sent = sorted(path.read_bytes() for path in (tmp_path / "in").iterdir())
        assert sent == sorted(path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm"))


@pytest.mark.parametrize("way", ["web", "get", "move"])
def test_a_thousand_instances_interrupted_and_resumed(
    opened: Open, orthanc: Orthanc, tmp_path: Path, way: str
) -> None:
    write_study(tmp_path / "in", THOUSAND)
    push(opened("get" if way == "move" else way), gather([tmp_path / "in"]))
    assert orthanc.count() == THOUSAND

    def interrupt(done: int, _total: int) -> None:
        if done == THOUSAND // 3:
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C does, whichever thread counts

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pull(opened(way), WHOLE_STUDY, out, progress=interrupt)
    before = len(list(out.rglob("*.dcm")))
    assert 0 < before < THOUSAND
    pulled = pull(opened(way), WHOLE_STUDY, out)
    assert (pulled.fetched, pulled.kept) == (THOUSAND - before, before)
    assert data_sets(out) == data_sets(tmp_path / "in")
    assert pull(opened(way), WHOLE_STUDY, out).fetched == 0


@pytest.mark.parametrize("way", ["web", "get", "move"])
def test_the_archive_is_killed_in_between(
    opened: Open, orthanc: Orthanc, tmp_path: Path, way: str
) -> None:
    write_study(tmp_path / "in", 200)
    push(opened("web"), gather([tmp_path / "in"]))

    def kill(done: int, _total: int) -> None:
        if done == 60:
            orthanc.kill()

    out = tmp_path / "out"
    with pytest.raises(ArchiveUnreachableError, match=r"127\.0\.0\.1.* of 200 instances are here"):
        pull(opened(way), WHOLE_STUDY, out, progress=kill)
    before = data_sets(out)
    assert 60 <= len(before) < 200
    assert [part.name for part in (out / ".parts").iterdir()] == ["lock"]
    orthanc.start()
    pulled = pull(opened(way), WHOLE_STUDY, out)
    assert (pulled.fetched, pulled.kept) == (200 - len(before), len(before))
    assert data_sets(out) == data_sets(tmp_path / "in")


@pytest.mark.parametrize("way", ["web", "get"])
def test_a_push_goes_on_where_the_archive_comes_back(
    opened: Open, orthanc: Orthanc, tmp_path: Path, way: str
) -> None:
    write_study(tmp_path / "in", 200)
    files = gather([tmp_path / "in"])

    def kill(done: int, _total: int) -> None:
        if done == 100:
            orthanc.kill()

    with pytest.raises(ArchiveUnreachableError):
        push(opened(way), files, progress=kill)
    orthanc.start()
    for _ in range(2):  # what it has already is sent again, and welcome
        assert push(opened(way), files).instances == 200
    assert orthanc.count() == 200


def test_results_go_back_and_come_again(opened: Open, radiograph: Path, tmp_path: Path) -> None:
    answer = write_answer(tmp_path / "answer.json", radiograph)
    results = write_results(answer, [radiograph], tmp_path / "results")
    push(opened("web"), gather([radiograph, tmp_path / "results"]))
    query = Query(keys={"StudyInstanceUID": results.study_uid})
    assert pull(opened("web"), query, tmp_path / "out").fetched == 3
    assert data_sets(tmp_path / "out") == data_sets(radiograph, tmp_path / "results")


@pytest.mark.parametrize("kind", ["radiograph", "volume"])
def test_a_draft_by_the_command_line_from_the_archive_and_back(
    kind: str,
    orthanc: Orthanc,
    medgemma_folder: Path,
    radiograph: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stored = tmp_path / "stored"
    stored.mkdir()
    if kind == "radiograph":
        shutil.copy(radiograph, stored)
    else:
        for number, data in enumerate(make_series(slices(12, side_px=64))):
            (stored / f"{number}.dcm").write_bytes(data)
    study_uid = str(dcmread(next(stored.iterdir())).StudyInstanceUID)

    def osler(*arguments: str | Path) -> str:
        assert main([str(one) for one in arguments]) == 0
        return capsys.readouterr().out

    model = ("--model", medgemma_folder)
    pulled, seen, results = tmp_path / "pulled", tmp_path / "seen.png", tmp_path / "results"
    osler("push", stored, "--to", orthanc.url)
    osler("pull", orthanc.url, "--study", study_uid, "--out", pulled)
    answer = tmp_path / "answer.json"
    answer.write_text(osler("ask", pulled, "Describe it.", *model, "--max-new-tokens=8", "--json"))
    osler("show", pulled, "--out", seen, *model)
    pictures = sorted(tmp_path.glob("seen*.png"))
    assert len(pictures) == len(list(stored.iterdir()))
    osler("result", answer, "--source", pulled, "--seen", *pictures, "--out", results)
    osler("push", results, "--to", orthanc.url)
    osler("pull", orthanc.url, "--study", study_uid, "--out", tmp_path / "again")
    assert data_sets(tmp_path / "again") == data_sets(stored, results)
    for path in results.iterdir():
        judged = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "Error" not in judged.stdout + judged.stderr, judged.stderr
    captures = sorted(map(dcmread, results.glob("seen-*")), key=lambda ds: int(ds.InstanceNumber))
    for ds, path in zip(captures, pictures, strict=True):
        with Picture.open(path) as picture:
            np.testing.assert_array_equal(ds.pixel_array, np.asarray(picture))
