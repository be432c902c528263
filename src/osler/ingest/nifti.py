"""NIfTI volumes, cut into slices as a radiologist looks at them; runs in the decoding worker.

NIfTI counts in RAS (right, anterior, superior are positive), DICOM in LPS. Volumes are turned to
the nearest L, P, S order here, so that a slice lies as a DICOM slice does: the patient's right is
on the left of an axial or coronal picture, the front is on the left of a sagittal one.
"""

import math
import zlib
from collections.abc import Iterator, Sequence

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.facts import FileFacts, FrameFacts, Pose, Vector
from osler.ingest.image import Image
from osler.ingest.limits import MAX_FILE_BYTES, MAX_FRAMES, check_size, inflated_bytes

_GZIP = b"\x1f\x8b"
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LPS = axcodes2ornt(("L", "P", "S"))
# Slices lie across the axis with the longest voxels, if these are longer by so much.
_CLEARLY_LONGER = 1.2
# Air is -1000 HU, and scanners pad below it; no other usual volume goes as low.
_HOUNSFIELD_BELOW = -900.0

# For slices across L, P and S: the axes that run along a row and down a column, and their signs.
_VIEWS = {0: ((1, 1), (2, -1)), 1: ((0, 1), (2, -1)), 2: ((0, 1), (1, 1))}

_DAMAGED = (
    *(ImageFileError, HeaderDataError, WrapStructError),
    *(ValueError, TypeError, KeyError, IndexError),
    *(OSError, EOFError, OverflowError, zlib.error, np.linalg.LinAlgError),
)


def describe_nifti(data: bytes) -> FileFacts:
    """Say what a NIfTI file in one piece holds.

    The modality is not among what it says: values as low as air's are taken for Hounsfield units.

    Args:
        data: the whole file, gzipped or not.

    Raises:
        UnreadableFileError: damaged, or gzipped and not NIfTI.
        UnsupportedError: too large, colours, complex numbers, or more than four axes.
    """
    volume = _Volume(data)
    is_ct = float(volume.values.min()) < _HOUNSFIELD_BELOW
    rows, columns = volume.slice_values(0).shape
    return FileFacts(
        kind="nifti",
        rows=rows,
        columns=columns,
        frames=tuple(
            FrameFacts(pose=volume.pose(number), order=(number,)) for number in range(volume.count)
        ),
        modality="CT" if is_ct else None,
        modality_is_guessed=True,
        pixel_spacing_mm=volume.pixel_spacing_mm,
        volumes=volume.volumes,
    )


def decode_slices(
    data: bytes, frames: Sequence[int], *, source: str, sha256: str
) -> Iterator[Image]:
    """Decode some slices, numbered as `describe_nifti` lists them.

    Raises:
        As `describe_nifti`, and UnreadableFileError for a slice that is not there.
    """
    volume = _Volume(data)
    modality = "CT" if float(volume.values.min()) < _HOUNSFIELD_BELOW else None
    for number in frames:
        if not 0 <= number < volume.count:
            raise UnreadableFileError(f"there is no slice {number + 1}")
        yield Image(
            values=np.ascontiguousarray(volume.slice_values(number)),
            space="modality",
            source=source,
            sha256=sha256,
            decoder="nibabel",
            modality=modality,
        )


class _Volume:
    """The first volume of a file, its axes in the nearest L, P, S order.

    Attributes:
        values: float32 (L, P, S), scaled; what is no number is as low as the lowest.
        volumes: how many the file has.
        count: of slices.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._load(_plain(data))
        except _DAMAGED:
            raise UnreadableFileError("the NIfTI file is damaged or truncated") from None

    def _load(self, data: bytes) -> None:
        kind = nibabel.Nifti2Image if data[4:7] == b"n+2" else nibabel.Nifti1Image
        image = kind.from_bytes(data)
        shape = [int(size) for size in image.shape]
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        if len(shape) not in (2, 3, 4) or min(shape) < 1:
            raise UnsupportedError(f"a NIfTI file with {len(shape)} axes is not read")
        if image.get_data_dtype().kind not in "iuf":
            raise UnsupportedError("a NIfTI file of colours or complex numbers is not read")
        self.volumes = shape[3] if len(shape) == 4 else 1
        shape = [*shape, 1][:3]
        if 4 * math.prod(shape) > MAX_FILE_BYTES:
            raise UnsupportedError("a volume of more voxels than are read")
        rest = len(image.shape) - 3
        values = np.asarray(image.dataobj[(..., *(0,) * rest)] if rest > 0 else image.dataobj)
        values = values.reshape(shape).astype(np.float32)
        turn = ornt_transform(io_orientation(image.affine), _LPS)
        turned = apply_orientation(values, turn)
        self.values: NDArray[np.float32] = _finite(turned)
        self._to_lps = _RAS_TO_LPS @ image.affine @ inv_ornt_aff(turn, shape)
        if not np.isfinite(self._to_lps).all():
            raise ValueError("an affine of no numbers")
        self._voxel_mm = np.linalg.norm(self._to_lps[:3, :3], axis=0)
        if not self._voxel_mm.min() > 0:
            raise ValueError("voxels without extent")
        self._across = self._slice_axis()
        self.count = self.values.shape[self._across]
        check_size(*self.slice_values(0).shape)
        if self.count > MAX_FRAMES:
            raise UnsupportedError(f"more than the {MAX_FRAMES:,} slices that are read")

    def _slice_axis(self) -> int:
        if 1 in self.values.shape:
            return self.values.shape.index(1)
        longest = int(np.argmax(self._voxel_mm))
        others = np.delete(self._voxel_mm, longest)
        return longest if self._voxel_mm[longest] > _CLEARLY_LONGER * others.max() else 2

    @property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        (along, _), (down, _) = _VIEWS[self._across]
        return float(self._voxel_mm[down]), float(self._voxel_mm[along])

    def slice_values(self, number: int) -> NDArray[np.float32]:
        """One slice, float32 (H, W)."""
        _, (_, sign) = _VIEWS[self._across]
        # What is left of the axes is in ascending order, and rows come first.
        cut: NDArray[np.float32] = np.take(self.values, number, axis=self._across).T[::sign]
        return cut

    def pose(self, number: int) -> Pose:
        """Where a slice lies."""
        (along, _), (down, sign) = _VIEWS[self._across]
        first = np.zeros(4)
        first[self._across], first[3] = number, 1
        if sign < 0:
            first[down] = self.values.shape[down] - 1
        return Pose(
            position_mm=_vector((self._to_lps @ first)[:3]),
            row=_vector(self._to_lps[:3, along] / self._voxel_mm[along]),
            column=_vector(sign * self._to_lps[:3, down] / self._voxel_mm[down]),
        )


def _plain(data: bytes) -> bytes:
    if not data.startswith(_GZIP):
        return data
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    most = inflated_bytes(len(data))
    plain = inflater.decompress(data, most)
    if inflater.unconsumed_tail:
        raise UnsupportedError(f"inflates to more than the {most:,} bytes that are read")
    if plain[344:347] != b"n+1" and plain[4:7] != b"n+2":
        raise UnreadableFileError("a gzip file with something else than NIfTI in it")
    if not inflater.eof:
        raise UnreadableFileError("the gzip file is truncated")
    return plain


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    known = np.isfinite(values)
    if known.all():
        return values
    return np.where(known, values, values[known].min()).astype(np.float32)


def _vector(values: NDArray[np.float64]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
