"""Files' facts to studies and series, with what is odd about each."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from osler.ingest.facts import FileFacts
from osler.ingest.file_part import FilePart
from osler.ingest.slide.pyramid import whole_slide
from osler.ingest.stack import Finding, FrameRef, Plane, Stack, parallel_groups, plane_of, stack

# Thicker than the usual axial series; small lesions vanish between such slices.
_THICK_MM = 5.0
# MedGemma 1.5 was given no CT of fewer slices.
_LEAST_CT_SLICES = 5
_UNITS = {"BQML": "Bq/ml", "CNTS": "counts"}
_OFTEN_WRITTEN_ON = ("US", "ES", "XC", "SC", "OT")


@dataclass(frozen=True, kw_only=True, eq=False)
class SlideMap:
    """Where a slide's patches lie.

    Attributes:
        picture: of all the slide, uint8 RGB (H, W, 3).
        cell_px: side of a patch in it; a patch's `cell` counts in these.
        magnification: of the patches.
        scanned_at: of the largest level.
    """

    picture: NDArray[np.uint8]
    cell_px: int
    magnification: float
    scanned_at: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """Images that belong together.

    Attributes:
        kind: a "volume" of slices in space, a "clip" of frames in time, a "slide" of patches, or
            single "images".
        frames: in order; of a volume one at each place.
        modality: DICOM Modality; None for pictures and for most NIfTI files.
        plane: of a volume, and of single slices that lie in one.
        is_oblique: whether these are clearly turned out of it.
        spacing_mm: of a volume: between slices; 0 where there is one.
        findings: what is odd.
        map: of a slide whose patches are known.
    """

    kind: Literal["volume", "clip", "slide", "images"]
    frames: tuple[FrameRef, ...]
    modality: str | None
    plane: Plane | None = None
    is_oblique: bool = False
    spacing_mm: float = 0.0
    findings: tuple[Finding, ...] = ()
    map: SlideMap | None = None

    @property
    def file(self) -> FileFacts:
        """What the first file says; the rest of a series say the same."""
        return self.frames[0].file

    @property
    def is_localizer(self) -> bool:
        """Whether these are scouts, by which a scan was planned."""
        return any(finding.kind == "localizer" for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The series of one examination.

    Attributes:
        series: in the order of their numbers.
        moment: as in `FileFacts`; to sort by, and not to be shown.
        patient: as in `FileFacts`.
    """

    series: tuple[Series, ...]
    moment: str = field(default="", repr=False)
    patient: str = field(default="", repr=False)

    @property
    def uid(self) -> str:
        """Study Instance UID; "" where there is none."""
        return self.series[0].file.study


def studies_of(files: Iterable[tuple[FilePart, FileFacts]]) -> list[Study]:
    """Group files by study and series, and frames by where they lie.

    Studies are in the order of their dates; those without one come first. Pictures are one study
    and series, and whatever does not say where it belongs is one of its own.
    """
    studies: dict[str, list[tuple[FilePart, FileFacts]]] = defaultdict(list)
    for number, (part, facts) in enumerate(files):
        studies[facts.study or _own(facts, number)].append((part, facts))
    found = [
        Study(
            series=tuple(_all_series(members)),
            moment=members[0][1].moment,
            patient=members[0][1].patient,
        )
        for members in studies.values()
    ]
    return sorted(found, key=lambda study: study.moment)


def _own(facts: FileFacts, number: int) -> str:
    return "pictures" if facts.kind == "picture" else f"file {number}"


def _all_series(files: Sequence[tuple[FilePart, FileFacts]]) -> Iterator[Series]:
    groups: dict[str, list[tuple[FilePart, FileFacts]]] = defaultdict(list)
    for number, (part, facts) in enumerate(files):
        groups[facts.series or _own(facts, number)].append((part, facts))
    for members in sorted(groups.values(), key=lambda group: group[0][1].series_number):
        yield from _series(members)


def _series(files: Sequence[tuple[FilePart, FileFacts]]) -> Iterator[Series]:
    placed: list[FrameRef] = []
    scouts: list[FrameRef] = []
    loose: list[FrameRef] = []
    levels = [(part, facts) for part, facts in files if facts.slide is not None]
    if levels:
        yield _made("slide", [whole_slide(levels)], [])
    for part, facts in files:
        frames = [FrameRef(part, number, facts) for number in range(len(facts.frames))]
        if facts.slide is not None:
            continue
        if facts.is_localizer:
            scouts += frames
        elif all(frame.pose is not None for frame in facts.frames):
            placed += frames
        elif len(frames) > 1:
            yield _made("clip", frames, [])
        else:
            loose += frames
    groups = parallel_groups(placed)
    stacks = [stack(group) for group in groups if len(group) > 1]
    loose += [frame for group in groups if len(group) == 1 for frame in group]
    mixed = []
    if len(groups) > 1:
        mixed = [Finding("mixed_orientations", f"{len(groups)} orientations or sizes in a series")]
    for one in stacks:
        if len(one.frames) > 1:
            yield _volume(one, mixed)
        else:
            loose += one.frames
    if loose:
        yield _single(sorted(loose, key=lambda frame: frame.facts.order), mixed)
    if scouts:
        yield _made("images", scouts, [Finding("localizer", "scouts, not a scan")])


def _no_places(frames: Sequence[FrameRef]) -> list[Finding]:
    if len(frames) < 2 or frames[0].file.modality not in ("CT", "MR", "PT"):
        return []
    return [Finding("no_positions", "no position in space; in the order of their numbers")]


def _single(frames: Sequence[FrameRef], mixed: list[Finding]) -> Series:
    unplaced = [frame for frame in frames if frame.facts.pose is None]
    planes = set() if unplaced else {plane_of(frame) for frame in frames}
    plane, is_oblique = planes.pop() if len(planes) == 1 else (None, False)
    findings = [*mixed, *_no_places(unplaced), *_of_slices(frames[0].file, plane)]
    return _made("images", frames, findings, plane, is_oblique)


def _of_slices(file: FileFacts, plane: Plane | None, spacing_mm: float = 0.0) -> Iterator[Finding]:
    thickness_mm = max(file.slice_thickness_mm or 0, spacing_mm)
    if thickness_mm > _THICK_MM:
        yield Finding("thick_slices", f"thick slices, of {thickness_mm:.1f} mm")
    if file.modality == "CT" and plane not in ("axial", None):
        yield Finding("not_axial", f"{plane}; MedGemma has learnt axial CT")


def _volume(one: Stack, mixed: list[Finding]) -> Series:
    file = one.frames[0].file
    findings = [*mixed, *one.findings, *_of_slices(file, one.plane, one.spacing_mm)]
    if file.modality == "CT" and len(one.frames) < _LEAST_CT_SLICES:
        findings.append(
            Finding("few_slices", f"fewer than the {_LEAST_CT_SLICES} slices of MedGemma's CTs")
        )
    if file.volumes > 1:
        findings.append(
            Finding("repeated_volumes", f"{file.volumes} volumes in the file; the first is used")
        )
    if file.modality_is_guessed:
        units = "taken for Hounsfield units" if file.modality == "CT" else "of unknown units"
        findings.append(Finding("modality_guessed", f"does not say what it is; values {units}"))
    if file.modality == "PT" and file.suv_per_unit is None:
        units = _UNITS.get(file.units or "", file.units or "unknown units")
        findings.append(
            Finding("no_suv", f"no uptake values (SUV) can be calculated; shown in {units}")
        )
    return _made(
        "volume", one.frames, findings, one.plane, one.is_oblique, spacing_mm=one.spacing_mm
    )


def _made(
    kind: Literal["volume", "clip", "slide", "images"],
    frames: Sequence[FrameRef],
    findings: list[Finding],
    plane: Plane | None = None,
    is_oblique: bool = False,
    spacing_mm: float = 0.0,
) -> Series:
    return Series(
        kind=kind,
        frames=tuple(frames),
        modality=frames[0].file.modality,
        plane=plane,
        is_oblique=is_oblique,
        spacing_mm=spacing_mm,
        findings=(*findings, *_writing(frames)),
    )


def _writing(frames: Sequence[FrameRef]) -> list[Finding]:
    """Whether letters are likely among the pixels; a name may be."""
    files = [frame.file for frame in frames if frame.file.kind in ("dicom", "slide")]
    if any(file.burned_in_text for file in files):
        return [Finding("burned_in_text", "says that it has text burned in")]
    silent = [file for file in files if file.burned_in_text is None]
    if any(file.is_capture or file.modality in _OFTEN_WRITTEN_ON for file in silent):
        return [Finding("burned_in_text", "of a kind that often has text burned in")]
    return []
