"""Patches of slides: where there is tissue, at one magnification, evenly, in reading order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from PIL import ImageDraw

from osler.errors import PromptError, UnsupportedError
from osler.ingest.scan import scan
from osler.ingest.series import Series
from osler.ingest.slide.patches import PatchRef
from osler.ingest.slide.tissue import saturations, tissue_fractions
from osler.preprocess.slices import read_shown, shown_of
from osler.preprocess.slides import AT_10X, SlideView, evenly_over, lay_out
from osler.preprocess.study_content import exhibits
from osler.testing.slides import GLASS, STAIN, pyramid, tissue, write_svs, write_tiff

HEIGHT, WIDTH = 1900, 2600
LEVELS = pyramid(tissue(HEIGHT, WIDTH), 3)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At 0.5 micrometres a pixel: as large as 3 x 3 patches at 20 x, the last ones cut."""
    return write_tiff(tmp_path_factory.mktemp("slides") / "a.tif", LEVELS)


def laid_out(path: Path, view: SlideView = AT_10X) -> Series:
    (study,) = lay_out(scan(path).studies, view)
    (series,) = study.series
    return series


def patches(series: Series) -> list[PatchRef]:
    assert all(isinstance(frame, PatchRef) for frame in series.frames)
    return [frame for frame in series.frames if isinstance(frame, PatchRef)]


@pytest.mark.parametrize(
    ("magnification", "side", "cells"),
    [
        (20, 896, [(0, 0), (0, 1), (1, 0), (1, 1)]),
        (10, 1792, [(0, 0)]),
        (5, 3584, [(0, 0)]),
    ],
)
def test_patches_at_a_magnification(
    slide: Path, magnification: int, side: int, cells: list[tuple[int, int]]
) -> None:
    series = laid_out(slide, SlideView(magnification=magnification))
    assert [patch.cell for patch in patches(series)][: len(cells)] == cells
    for patch in patches(series):
        row, column = patch.cell
        assert patch.box == pytest.approx((column * side, row * side, side, side))
    assert series.map is not None
    assert series.map.scanned_at == pytest.approx(20)
    image = read_shown(shown_of(series))[0]
    assert image.size_px == (896, 896)
    factor = side // 896
    base = np.full((side, side, 3), 255, np.uint8)
    base[: min(side, HEIGHT), : min(side, WIDTH)] = LEVELS[0][:side, :side]
    expected = np.asarray(Picture.fromarray(base).reduce(factor)) if factor > 1 else base
    # A cut tile of the smaller levels ends half a pixel early.
    inside = expected[: HEIGHT // factor - 2, : WIDTH // factor - 2]
    got = image.values[: inside.shape[0], : inside.shape[1]]
    assert np.abs(got.astype(int) - inside.astype(int)).max() <= 1


def test_the_picture_of_the_slide_is_the_slide(slide: Path) -> None:
    series = laid_out(slide, SlideView(magnification=20))
    assert series.map is not None
    side = series.map.cell_px
    assert series.map.picture.shape == (3 * side, 3 * side, 3)
    whole = Picture.fromarray(LEVELS[0]).resize(
        (round(WIDTH * side / 896), round(HEIGHT * side / 896))
    )
    got = series.map.picture[: whole.height - 2, : whole.width - 2].astype(int)
    assert np.abs(got - np.asarray(whole)[:-2, :-2].astype(int)).mean() < 3
    assert (series.map.picture[-10:] == 255).all()


def test_other_pixels_other_patches(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", LEVELS, mpp=0.25)
    (one,) = patches(laid_out(path, SlideView(magnification=10)))
    assert one.box[2] == pytest.approx(896 * 4)
    said = laid_out(path, SlideView(magnification=20, mpp=0.5))
    assert patches(said)[0].box[2] == pytest.approx(896)


def test_only_the_objective_is_known(tmp_path: Path) -> None:
    series = laid_out(write_svs(tmp_path / "a.svs", LEVELS, told="AppMag = 20"))
    assert [finding.kind for finding in series.findings] == ["objective_only"]
    assert patches(series)[0].box[2] == pytest.approx(1792)


def test_nothing_is_known(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", LEVELS, mpp=None)
    with pytest.raises(UnsupportedError, match=r"^.*a\.tif: .* say it with --mpp MICROMETRES$"):
        laid_out(path)
    assert laid_out(path, SlideView(mpp=0.5)).findings == ()


def test_detail_is_not_made_up(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", LEVELS, mpp=1.0)
    with pytest.raises(
        UnsupportedError, match=r"scanned at 10 x, which has not the detail of 20 x"
    ):
        laid_out(path, SlideView(magnification=20))


def test_a_size_that_no_slide_has(slide: Path) -> None:
    (study,) = scan(slide).studies
    (whole,) = study.series[0].frames
    assert whole.file.slide is not None
    huge = replace(whole.file.slide, bounds_px=(0, 0, 1 << 31, 1 << 31))
    frame = replace(whole, file=replace(whole.file, slide=huge))
    series = replace(study.series[0], frames=(frame,))
    with pytest.raises(UnsupportedError, match="squares is more than"):
        lay_out([replace(study, series=(series,))])


def test_an_empty_slide_is_seen_evenly_and_said_to_be_empty(tmp_path: Path) -> None:
    glass = np.full((HEIGHT, WIDTH, 3), GLASS, np.uint8)
    series = laid_out(write_tiff(tmp_path / "a.tif", [glass]), SlideView(magnification=20))
    assert [finding.kind for finding in series.findings] == ["no_tissue"]
    assert len(series.frames) == 9


@pytest.mark.parametrize(
    "wrong", [{"magnification": 40}, {"mpp": 0.0}, {"mpp": float("nan")}, {"max_patches": 0}]
)
def test_wrong_views(wrong: dict[str, float]) -> None:
    with pytest.raises(PromptError):
        SlideView(**wrong)  # type: ignore[arg-type]  # wrong on purpose


# --- which of them -----------------------------------------------------------------------------


def test_slides_share_the_patches(slide: Path) -> None:
    studies = lay_out([*scan(slide).studies] * 2, SlideView(magnification=20))
    counts = [len(exhibit.shown.frames) for exhibit in exhibits(studies, max_patches=9)]
    assert sum(counts) <= 9
    assert min(counts) >= 4


def test_one_slide_is_patches_and_the_question(slide: Path) -> None:
    (one,) = exhibits(lay_out(scan(slide).studies, SlideView(magnification=20)))
    assert one.heading == ""
    assert set(one.shown.labels) == {""}


@settings(max_examples=40)
@given(st.sets(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1), st.integers(1, 130))
def test_as_many_as_there_may_be_in_their_order(cells: set[tuple[int, int]], most: int) -> None:
    chosen = evenly_over(sorted(cells), most)
    assert len(chosen) == min(most, len(cells))
    assert chosen == sorted(set(chosen))


def test_evenly_in_both_directions() -> None:
    cells = [(row, column) for row in range(63) for column in range(40)]
    chosen = np.array([cells[number] for number in evenly_over(cells, 126)])
    # Every 20th of 40 in a row would stand in two columns.
    rows, columns = np.bincount(chosen[:, 0] // 9), np.bincount(chosen[:, 1] // 8)
    assert len(set(chosen[:, 1])) >= 15
    assert rows.min() >= 10
    assert columns.min() >= 20


# --- tissue --------------------------------------------------------------------------------------


def drawn(colour: tuple[int, int, int], ground: tuple[int, int, int] = GLASS) -> Picture.Image:
    picture = Picture.new("RGB", (200, 200), ground)
    ImageDraw.Draw(picture).rectangle((0, 0, 99, 199), fill=colour)
    return picture


@pytest.mark.parametrize(
    "stain",
    [STAIN, (236, 212, 226), (120, 90, 160), (150, 105, 70), (160, 175, 205)],
    ids=["H&E", "pale eosin", "nuclei", "DAB", "pale haematoxylin"],
)
@pytest.mark.parametrize("ground", [GLASS, (255, 255, 255), (226, 219, 222)])
def test_tissue(stain: tuple[int, int, int], ground: tuple[int, int, int]) -> None:
    counts = np.stack([saturations(drawn(stain, ground)), saturations(drawn(ground, ground))])
    fractions = tissue_fractions(counts)
    assert fractions == pytest.approx([0.5, 0], abs=0.03)


@pytest.mark.parametrize(
    "other",
    [(30, 30, 34), (20, 140, 60), (0, 0, 0), (128, 128, 130)],
    ids=["black ink", "green ink", "edge", "dust"],
)
def test_what_is_not_tissue(other: tuple[int, int, int]) -> None:
    counts = np.stack([saturations(drawn(other)), saturations(drawn(STAIN))])
    assert tissue_fractions(counts) == pytest.approx([0, 0.5], abs=0.03)


def test_grain_is_not_tissue() -> None:
    grain = np.random.default_rng(0).normal(236, 5, (200, 200, 3))
    noisy = Picture.fromarray(np.clip(grain, 0, 255).astype(np.uint8))
    assert tissue_fractions(saturations(noisy)[np.newaxis])[0] < 0.01
