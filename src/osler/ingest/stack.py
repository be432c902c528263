"""Frames that lie in space: which belong together, in which order, and what is odd about them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from osler.ingest.facts import FileFacts, FrameFacts, Pose
from osler.ingest.file_part import FilePart

# Directions closer than this are one: what rounding to a few decimals makes of parallel slices.
_PARALLEL_COS = math.cos(math.radians(0.5))
_SAME_PLACE_MM = 0.01
_TILT_FROM_DEGREES = 0.5
# A step of so many others' is a gap; a smaller difference is uneven spacing.
_GAP = 1.5
_UNEVEN = 0.1
_OBLIQUE_FROM_DEGREES = 20.0

Plane = Literal["axial", "coronal", "sagittal"]
_PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
# From right to left, from front to back, from head to feet: as series are usually read.
_READING = np.array([1.0, 1.0, -1.0])


@dataclass(frozen=True)
class Finding:
    """Something about a series that whoever reads an answer should know.

    Attributes:
        kind: what it is, for programs.
        text: the same in words.
    """

    kind: str
    text: str


@dataclass(frozen=True, eq=False)
class FrameRef:
    """One frame of a file; equal only to itself, as comparing all facts would take long.

    Attributes:
        part: where the file is.
        number: of the frame in it, from 0.
        file: what the file says.
    """

    part: FilePart
    number: int
    file: FileFacts

    @property
    def facts(self) -> FrameFacts:
        """What the file says of this frame."""
        return self.file.frames[self.number]


class Stack(NamedTuple):
    """Parallel frames in their order in space.

    Attributes:
        frames: one at each place.
        plane: the nearest of the three.
        is_oblique: whether it is clearly turned out of it.
        spacing_mm: from slice to slice along the normal, the median.
        findings: what is odd.
    """

    frames: list[FrameRef]
    plane: Plane
    is_oblique: bool
    spacing_mm: float
    findings: list[Finding]


def parallel_groups(frames: Sequence[FrameRef]) -> list[list[FrameRef]]:
    """Frames of one direction and size each; the largest group first.

    Args:
        frames: all with a pose.
    """
    groups: list[list[FrameRef]] = []
    for frame in frames:
        for group in groups:
            if _goes_with(frame, group[0]):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return sorted(groups, key=len, reverse=True)


def _goes_with(frame: FrameRef, other: FrameRef) -> bool:
    one, two = _pose(frame), _pose(other)
    return (
        (frame.file.rows, frame.file.columns) == (other.file.rows, other.file.columns)
        and float(np.dot(one.row, two.row)) > _PARALLEL_COS
        and float(np.dot(one.column, two.column)) > _PARALLEL_COS
    )


def stack(frames: Sequence[FrameRef]) -> Stack:
    """Sort parallel frames along their normal, one at each place.

    The order is that of the places on the normal of the image plane and of nothing else: not the
    instance numbers, which follow the scanner, and not one axis, which a tilt or an oblique plane
    makes ambiguous. It goes from head to feet, from front to back, or from right to left.

    Args:
        frames: one or more of one direction.

    Source: PS3.3 C.7.6.2.1.1.
    """
    normal = _normal(_pose(frames[0]))
    places = {id(frame): float(np.dot(_pose(frame).position_mm, normal)) for frame in frames}
    ordered = sorted(frames, key=lambda frame: (places[id(frame)], frame.facts.order))
    kept: list[FrameRef] = []
    at_each: list[int] = []
    for frame in ordered:
        if kept and places[id(frame)] - places[id(kept[-1])] < _SAME_PLACE_MM:
            at_each[-1] += 1
        else:
            kept.append(frame)
            at_each.append(1)
    findings = _repeats(at_each)
    spacing_mm = 0.0
    if len(kept) > 1:
        steps = np.diff([places[id(frame)] for frame in kept])
        spacing_mm = float(np.median(steps))
        findings += [*_tilt(kept, normal), *_gaps(steps, spacing_mm)]
    return Stack(kept, *plane_of(frames[0]), spacing_mm, findings)


def plane_of(frame: FrameRef) -> tuple[Plane, bool]:
    """The nearest of the three planes, and whether a frame is clearly turned out of it.

    Args:
        frame: with a pose.
    """
    along = np.abs(_normal(_pose(frame)))
    axis = int(np.argmax(along))
    return _PLANES[axis], bool(along[axis] < math.cos(math.radians(_OBLIQUE_FROM_DEGREES)))


def _normal(pose: Pose) -> NDArray[np.float64]:
    """The unit vector across a slice, in the direction in which series are read."""
    normal = np.cross(pose.row, pose.column)
    normal /= np.linalg.norm(normal)
    axis = int(np.argmax(np.abs(normal)))
    turned: NDArray[np.float64] = normal * np.sign(normal[axis]) * _READING[axis]
    return turned


def _repeats(at_each: list[int]) -> list[Finding]:
    if set(at_each) == {1}:
        return []
    if len(set(at_each)) == 1 and len(at_each) > 1:
        return [
            Finding(
                "repeated_volumes",
                f"{at_each[0]} images at each place (times, echoes, weightings); the first is used",
            )
        ]
    places = sum(count > 1 for count in at_each)
    where = "1 place" if places == 1 else f"{places} places"
    return [
        Finding("duplicate_slices", f"more than one image at {where}; the first of each is used")
    ]


def _tilt(frames: list[FrameRef], normal: NDArray[np.float64]) -> list[Finding]:
    """A gantry that is tilted moves each slice within its plane against the one before."""
    way = np.subtract(_pose(frames[-1]).position_mm, _pose(frames[0]).position_mm)
    along = float(way @ normal)
    within = float(np.linalg.norm(way - along * normal))
    degrees = math.degrees(math.atan2(within, along))
    if degrees < _TILT_FROM_DEGREES:
        return []
    return [
        Finding("gantry_tilt", f"slices are sheared by {degrees:.1f} degrees, as by a gantry tilt")
    ]


def _gaps(steps: NDArray[np.float64], spacing_mm: float) -> list[Finding]:
    missing = int(sum(round(step / spacing_mm) - 1 for step in steps if step > _GAP * spacing_mm))
    if missing:
        gaps = int((steps > _GAP * spacing_mm).sum())
        what = "1 slice is missing" if missing == 1 else f"{missing} slices are missing"
        return [Finding("missing_slices", f"{what}, in {gaps} gap{'s' * (gaps > 1)}")]
    if np.abs(steps - spacing_mm).max() > _UNEVEN * spacing_mm:
        return [
            Finding(
                "uneven_spacing",
                f"slices are {steps.min():.1f} to {steps.max():.1f} mm from one another",
            )
        ]
    return []


def _pose(frame: FrameRef) -> Pose:
    pose = frame.facts.pose
    if pose is None:
        raise ValueError("a frame without a pose has no place in a stack")
    return pose
