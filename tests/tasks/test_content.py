"""Volumes, clips, photographs and studies in a question."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

import osler
from osler.errors import PromptError, UnreadableFileError
from osler.tasks import content
from osler.tasks.content import question_messages, read_content
from osler.tasks.show import seen_squares
from osler.testing.dicom import make_dicom
from osler.testing.series import make_frames, make_series, slices


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    for number, data in enumerate(make_series(slices(8, side_px=16))):
        (folder / f"{number}.dcm").write_bytes(data)
    return folder


def test_a_volume_has_a_label_after_each_slice_and_the_question_behind(volume: Path) -> None:
    found = read_content([volume], max_slices=3)
    assert found.notes == ["CT, axial: 3 of 8 are seen"]
    (message,) = question_messages("What is shown?", found.items)
    assert [item["type"] for item in message["content"]] == ["text", *["image", "text"] * 3]
    assert [item["text"] for item in message["content"][::2]] == [
        "CT, axial:",
        "SLICE 1",
        "SLICE 2",
        "SLICE 3\n\nWhat is shown?",
    ]


def test_a_question_on_a_volume(medgemma_folder: Path, volume: Path) -> None:
    model = osler.load(medgemma_folder)
    answer = model.ask("What is shown?", [volume], max_slices=3, max_new_tokens=3)
    assert len(answer.input_sha256) == 3
    tokens = model.config.mm_tokens_per_image
    assert 3 * tokens < answer.prompt_tokens < 3 * (tokens + 20) + 20
    assert answer.prompt_tokens == model.processor.length(
        question_messages("What is shown?", read_content([volume], max_slices=3).items)
    )


def test_paths_and_what_is_in_memory_keep_their_order(volume: Path) -> None:
    grey = np.zeros((4, 4), np.uint8)
    items = read_content([grey, volume / "0.dcm", grey]).items
    assert [item["type"] for item in items] == ["image"] * 3
    assert items[0]["image"] is grey
    assert items[1]["image"].source == str(volume / "0.dcm")


def test_notes_say_what_is_odd_and_what_was_left_out(volume: Path) -> None:
    (volume / "readme.txt").write_text("Dear colleague,")
    (volume / "4.dcm").unlink()
    (volume / "scout.dcm").write_bytes(
        make_series(
            slices(1),
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            SeriesInstanceUID="2.25.9",
            uid_root="2.25.10",
        )[0]
    )
    other = volume / "other.dcm"
    other.write_bytes(make_dicom(np.eye(4, dtype=np.uint8), PatientID="1", SOPInstanceUID="2.25.8"))
    third = volume / "third.dcm"
    third.write_bytes(make_dicom(np.eye(4, dtype=np.uint8), PatientID="2", SOPInstanceUID="2.25.7"))
    notes = read_content([volume]).notes
    assert "left out: 1 x neither DICOM nor a PNG, JPEG, WebP or TIFF picture" in notes
    assert "left out: 3 x scouts or screens" in notes
    assert "CT, axial: 1 slice is missing, in 1 gap" in notes
    assert "these are images of several patients" in notes


def test_what_is_wrong_is_an_error(volume: Path) -> None:
    with pytest.raises(PromptError, match="a list of images"):
        read_content(str(volume))
    with pytest.raises(PromptError, match="at least 1"):
        read_content([volume], max_slices=0)
    with pytest.raises(UnreadableFileError, match="no such file"):
        read_content([volume / "gone.dcm"])


def test_a_folder_of_more_images_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        Picture.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    assert len(read_content([tmp_path]).items) == 4
    monkeypatch.setattr(content, "_MOST_IMAGES", 3)
    with pytest.raises(PromptError, match="4 images are more than the 3"):
        read_content([tmp_path])


def test_what_is_seen_of_a_volume_and_of_a_clip(medgemma_folder: Path, tmp_path: Path) -> None:
    frames = [np.full((8, 8, 3), 40 * n, np.uint8) for n in range(6)]
    clip = tmp_path / "clip.dcm"
    clip.write_bytes(make_frames(frames, Modality="US"))
    squares = seen_squares(clip, medgemma_folder)
    assert [int(square[0, 0, 0]) for square in squares] == [40 * n for n in range(6)]
    assert len(seen_squares(clip, medgemma_folder, max_slices=2)) == 2


def photograph() -> bytes:
    """With all that a camera writes: where, when, and which camera it was."""
    exif = Picture.Exif()
    exif[0x0112] = 6
    exif[0x010F], exif[0x0132] = "SECRETMAKER", "2024:03:01 10:11:12"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0)})
    exif.get_ifd(0x8769).update({0xA431: "SERIAL-123456", 0x927C: b"SECRETNOTE"})
    file = BytesIO()
    Picture.new("RGB", (30, 20), (200, 120, 90)).save(
        file, "JPEG", exif=exif, comment=b"SECRETCOMMENT"
    )
    return file.getvalue()


def test_what_a_camera_wrote_stays_behind(medgemma_folder: Path, tmp_path: Path) -> None:
    data = photograph()
    for secret in (b"SECRETMAKER", b"SERIAL-123456", b"SECRETCOMMENT"):
        assert secret in data
    path = tmp_path / "skin.jpg"
    path.write_bytes(data)
    (item,) = read_content([path]).items
    assert item["image"].size_px == (30, 20)  # upright
    assert "SECRET" not in repr(item)
    assert "SERIAL" not in repr(item)
    # What leaves is made of the pixels alone: no bytes of the file's go with them.
    assert type(item["image"].values) is np.ndarray
