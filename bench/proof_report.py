"""The table and the plot of `bench/proof.py`."""

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

Run = dict[str, Any]
Known = Mapping[str, Sequence[Run]]
OURS = "osler"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure, and what it is to be.

    Attributes:
        comparison: of `bench/proof.py`.
        title: of the figure, with its unit.
        figure: takes it from a run; None where a contender does not have it.
        more_is_better: else less.
        target: at least so many times the best peer's, or where less is better at most.
        bound: at least, or at most, this itself, where there is no peer.
    """

    comparison: str
    title: str
    figure: Callable[[Run], float | None]
    more_is_better: bool = True
    target: float | None = None
    bound: float | None = None


def _of(*names: str) -> Callable[[Run], float | None]:
    """The first of these figures that the run has."""

    def figure(run: Run) -> float | None:
        found = (run["result"].get(name) for name in names)
        return next((value for value in found if value is not None), None)

    return figure


def _of_bandwidth(run: Run) -> float | None:
    result = run["result"]
    if "token_bytes" not in result:
        return None
    read_gbs = statistics.mean(run["read_gbs"])
    rate: float = result["token_bytes"] * result["decode_tok_s"] / 1e9 / read_gbs
    return rate


ROWS = (
    Row(comparison="decode", title="decode, tokens/s", figure=_of("decode_tok_s"), target=1.2),
    Row(comparison="decode", title="decode, of the bandwidth", figure=_of_bandwidth, bound=0.85),
    Row(
        comparison="prefill_512",
        title="prompt of 512, tokens/s",
        figure=_of("prefill_tok_s"),
        target=1,
    ),
    Row(
        comparison="prefill_8k",
        title="prompt of 8,000, tokens/s",
        figure=_of("prefill_tok_s"),
        target=1,
    ),
    *(
        Row(
            comparison=f"image_{size}_{format}",
            title=f"one {size} px image, {format}, s",
            figure=_of("seconds_27", "encode_s"),
            more_is_better=False,
            target=target,
        )
        for size in (448, 896)
        for format, target in (("int8", 1.0), ("bf16", 0.8))
    ),
    Row(
        comparison="whole",
        title="image + 64 tokens -> 200, s",
        figure=_of("total_s"),
        more_is_better=False,
        target=0.38,
    ),
    Row(
        comparison="whole",
        title="the same, to the first token, s",
        figure=_of("ttft_s"),
        more_is_better=False,
        target=0.25,
    ),
    Row(
        comparison="whole",
        title="the same, peak memory, GB",
        figure=_of("rss_gb"),
        more_is_better=False,
        target=1,
    ),
    Row(
        comparison="eight",
        title="eight requests, new tokens/s",
        figure=_of("new_tok_s"),
        target=2,
    ),
    Row(
        comparison="second",
        title="second question, of the first's time",
        figure=_of("share"),
        more_is_better=False,
        bound=0.05,
    ),
    Row(
        comparison="copy",
        title="copying answer, times plain decoding",
        figure=_of("gain"),
        bound=1.5,
    ),
    Row(
        comparison="long",
        title="32,768 tokens, peak memory, GB",
        figure=_of("rss_gb"),
        more_is_better=False,
    ),
    Row(comparison="decode_27b", title="27B decode, tokens/s", figure=_of("decode_tok_s")),
    Row(
        comparison="decode_27b",
        title="27B decode, of the bandwidth",
        figure=_of_bandwidth,
        bound=0.85,
    ),
    Row(
        comparison="decode_27b",
        title="27B peak memory, GB",
        figure=_of("rss_gb"),
        more_is_better=False,
        bound=18,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A row with its figures.

    Attributes:
        row: which.
        medians: by contender.
        versus: ours over the best peer's; None where there is no peer.
        met: whether the target is; None where there is none.
    """

    row: Row
    medians: Mapping[str, float]
    versus: float | None
    met: bool | None


def measured(known: Known) -> Iterator[Measured]:
    """All rows of which there are figures."""
    for row in ROWS:
        values: dict[str, list[float]] = {}
        for run in known.get(row.comparison, ()):
            if (value := row.figure(run)) is not None:
                values.setdefault(run["contender"], []).append(value)
        if OURS not in values:
            continue
        medians = {name: statistics.median(of) for name, of in values.items()}
        peers = [value for name, value in medians.items() if name != OURS]
        sign = 1 if row.more_is_better else -1
        versus = medians[OURS] / (max(peers) if sign > 0 else min(peers)) if peers else None
        met = None
        if row.bound is not None:
            met = sign * medians[OURS] >= sign * row.bound
        elif row.target is not None and versus is not None:
            met = sign * versus >= sign * row.target
        yield Measured(row=row, medians=medians, versus=versus, met=met)


def write_report(known: Known, folder: Path) -> None:
    """Write `proof.md` and `proof.png`, each whole or not at all."""
    rows = list(measured(known))
    if not rows:
        return
    text = folder / "proof.md.part"
    text.write_text(_table(rows), encoding="utf-8")
    os.replace(text, folder / "proof.md")
    picture = folder / "proof.part.png"
    _plot(rows, picture)
    os.replace(picture, folder / "proof.png")


def _table(rows: Sequence[Measured]) -> str:
    lines = ["| | Osler | peers | ours / best | wanted | |", "|---|---|---|---|---|---|"]
    for one in rows:
        peers = ", ".join(
            f"{name} {value:.3g}" for name, value in one.medians.items() if name != OURS
        )
        versus = "" if one.versus is None else f"{one.versus:.2f}"
        met = {None: "", True: "yes", False: "**no**"}[one.met]
        lines.append(
            f"| {one.row.title} | {one.medians[OURS]:.3g} | {peers} | {versus} |"
            f" {_wanted(one.row)} | {met} |"
        )
    return "\n".join(lines) + "\n"


def _wanted(row: Row) -> str:
    sign = "≥" if row.more_is_better else "≤"
    if row.bound is not None:
        return f"{sign} {row.bound:g}"
    return "" if row.target is None else f"{sign} {row.target:g} x"


def _plot(rows: Sequence[Measured], path: Path) -> None:
    """Bars of how many times as fast as each peer we are."""
    mpl.use("Agg")
    bars = [
        (f"{one.row.title.rsplit(',', 1)[0]}\nagainst {name}", ours / value, one.row)
        for one in rows
        for name, value in one.medians.items()
        if name != OURS
        for ours in [one.medians[OURS]]
    ]
    if not bars:
        return
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(bars) + 1.2), layout="constrained")
    for place, (_, ratio, row) in enumerate(bars):
        times = ratio if row.more_is_better else 1 / ratio
        axes.barh(place, times, color="#2b6ca3" if times >= 1 else "#b5533c")
        axes.text(times, place, f" {times:.2f}", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the peer (memory: times less)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
