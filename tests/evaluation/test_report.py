"""Reports: tables, JSON, and a document's part between markers."""

import json
import math
from pathlib import Path

import pytest

from osler.errors import UnreadableFileError
from osler.evaluation.figure import Figure, mean_of, share
from osler.evaluation.report import (
    BEGIN,
    END,
    Section,
    between_markers,
    figure_table,
    markdown,
    record,
    write_text,
)


def figure(**changes: object) -> Figure:
    values: dict[str, object] = {
        **{"name": "a", "metric": "AUC", "by": "probe", "value": 0.5, "low": 0.25, "high": 0.75},
        "images": 1234,
    }
    return Figure(**(values | changes))  # type: ignore[arg-type]


def test_a_table_has_a_row_a_name_and_a_column_a_metric() -> None:
    figures = [figure(), figure(by="words", unscored=3), figure(name="b", value=math.nan)]
    assert figure_table(figures).splitlines() == [
        "| What | n | AUC, probe | AUC, words | Unscored |",
        "|---|---:|---:|---:|---:|",
        "| a | 1,234 | 50.0% (25.0% to 75.0%) | 50.0% (25.0% to 75.0%) | 3 |",
        "| b | 1,234 | not measured |  | 0 |",
    ]


def test_targets_are_said_with_whether_they_are_reached() -> None:
    reached, missed = figure(target=0.5), figure(name="b", target=0.25, clearly=True)
    assert (reached.reached, missed.reached, figure().reached) == (True, False, None)
    text = markdown([Section(title="T", says="S", figures=[reached, missed])], {"model": "nano"})
    assert "| a | AUC, probe | 50.0% (25.0% to 75.0%) | at least 50.0% | yes |" in text
    assert "| b | AUC, probe | 50.0% (25.0% to 75.0%) | interval above 25.0% | **no** |" in text
    assert text.startswith("model: nano.\n")


def test_what_could_not_be_measured_is_null() -> None:
    lost = figure(value=math.nan, low=math.nan, high=math.nan)
    values = json.loads(record([Section(title="T", says="S", figures=[lost])], {}))
    (found,) = values["sections"][0]["figures"]
    assert found["value"] is found["low"] is found["high"] is None


def test_a_share_of_all_has_an_interval_still() -> None:
    groups = [f"{i // 2}" for i in range(40)]
    everything = share("a", [True] * 40, groups)
    assert (everything.value, everything.high) == (1.0, 1.0)
    assert 0.8 < everything.low < 0.85  # of twenty groups, by Wilson
    assert share("a", [False] * 40, groups).low == pytest.approx(0.0, abs=1e-12)
    half = mean_of("a", "ROUGE-L", [0.0, 1.0] * 20, groups)
    assert half.low == half.high == 0.5  # each group holds one of both


def test_a_document_s_part_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "CARD.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_text(path, between_markers(path, "new\n"))
    write_text(path, between_markers(path, "newer"))
    assert path.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"
    assert [file.name for file in tmp_path.iterdir()] == ["CARD.md"]


@pytest.mark.parametrize(
    "document", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{END}\n"]
)
def test_a_document_without_its_markers_is_left_alone(tmp_path: Path, document: str) -> None:
    path = tmp_path / "CARD.md"
    path.write_text(document)
    with pytest.raises(UnreadableFileError, match="needs one line <!-- figures: begin -->"):
        between_markers(path, "new")
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        between_markers(tmp_path / "none.md", "new")
    with pytest.raises(UnreadableFileError, match="cannot be written"):
        write_text(tmp_path / "none" / "file", "new")
