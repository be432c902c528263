"""The Image Pixel module, checked before anything is allocated for it."""

from dataclasses import dataclass

from pydicom import Dataset

from osler.errors import DicomError, UnsupportedError
from osler.ingest.dicom.attributes import integer, value_of
from osler.ingest.limits import MAX_FRAMES, check_size

_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_OTHER = ("HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")


@dataclass(frozen=True, kw_only=True)
class PixelHeader:
    """The shape and coding of each frame, and how many there are, under DICOM's names.

    Source: PS3.3 C.7.6.3.
    """

    rows: int
    columns: int
    samples_per_pixel: int
    photometric_interpretation: str
    planar_configuration: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    number_of_frames: int = 1

    @property
    def is_grey(self) -> bool:
        return self.photometric_interpretation in _GREY

    @property
    def is_palette(self) -> bool:
        return self.photometric_interpretation == _PALETTE

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a frame's samples, colours last."""
        size = (self.rows, self.columns)
        return size if self.samples_per_pixel == 1 else (*size, self.samples_per_pixel)

    @property
    def samples(self) -> int:
        """How many a frame has."""
        return self.rows * self.columns * self.samples_per_pixel

    @property
    def is_plain(self) -> bool:
        """Whether samples without compression follow one another, each in bytes of its own."""
        return (
            self.bits_allocated > 1
            and self.planar_configuration == 0
            and self.photometric_interpretation != "YBR_FULL_422"
        )

    @property
    def native_bytes(self) -> int:
        """Length of one frame without compression, without the byte that makes it even."""
        bits = self.rows * self.columns * self.samples_per_pixel * self.bits_allocated
        if self.photometric_interpretation == "YBR_FULL_422":
            bits = bits // 3 * 2
        return -(-bits // 8)


def read_pixel_header(ds: Dataset) -> PixelHeader:
    """Read and check the attributes that describe frames of integer pixels.

    Raises:
        DicomError: no pixel data, an attribute missing, or values that contradict one another.
        UnsupportedError: floating-point pixels, or a coding that is not read.
    """
    _check_has_pixels(ds)
    bits_stored = integer(ds, "BitsStored")
    header = PixelHeader(
        rows=integer(ds, "Rows"),
        columns=integer(ds, "Columns"),
        samples_per_pixel=integer(ds, "SamplesPerPixel"),
        photometric_interpretation=_photometric_interpretation(ds),
        planar_configuration=integer(ds, "PlanarConfiguration", default=0),
        bits_allocated=integer(ds, "BitsAllocated"),
        bits_stored=bits_stored,
        high_bit=integer(ds, "HighBit", default=bits_stored - 1),
        pixel_representation=integer(ds, "PixelRepresentation"),
        number_of_frames=number_of_frames(ds),
    )
    _check(header)
    return header


def number_of_frames(ds: Dataset) -> int:
    """How many frames an object has; at least one.

    Raises:
        DicomError: not an integer.
        UnsupportedError: more than `MAX_FRAMES`.
    """
    frames = max(1, integer(ds, "NumberOfFrames", default=1))
    if frames > MAX_FRAMES:
        raise UnsupportedError(f"{frames:,} frames are more than the {MAX_FRAMES:,} that are read")
    return frames


def _check_has_pixels(ds: Dataset) -> None:
    if "DirectoryRecordSequence" in ds:
        raise DicomError("a DICOMDIR, which lists files and holds no pixels")
    if "FloatPixelData" in ds or "DoubleFloatPixelData" in ds:
        raise UnsupportedError("floating-point pixel data is not read")
    if "PixelData" not in ds:
        raise DicomError("a DICOM object without pixel data")


def _photometric_interpretation(ds: Dataset) -> str:
    value = value_of(ds, "PhotometricInterpretation")
    if value is None:
        raise DicomError("PhotometricInterpretation is missing")
    name = str(value).strip()
    if name in _OTHER:
        raise UnsupportedError(f"PhotometricInterpretation {name} is not read")
    if name not in (*_GREY, _PALETTE, *_COLOR):
        raise DicomError("PhotometricInterpretation is none that DICOM defines")
    return name


def _check(header: PixelHeader) -> None:
    h = header
    if h.rows < 1 or h.columns < 1:
        raise DicomError(f"Rows x Columns is {h.rows} x {h.columns}")
    check_size(h.rows, h.columns)
    samples = 3 if h.photometric_interpretation in _COLOR else 1
    if h.samples_per_pixel != samples:
        raise DicomError(
            f"SamplesPerPixel is {h.samples_per_pixel} for {h.photometric_interpretation}"
        )
    if h.number_of_frames > 1 and h.rows * h.columns * h.bits_allocated % 8:
        raise UnsupportedError("frames that begin in the middle of a byte are not read")
    if h.bits_allocated not in (1, 8, 16, 32):
        raise UnsupportedError(f"BitsAllocated {h.bits_allocated} is not read; 1, 8, 16, 32 are")
    if not 0 < h.bits_stored <= h.bits_allocated:
        raise DicomError(f"BitsStored is {h.bits_stored} of {h.bits_allocated} BitsAllocated")
    if not h.bits_stored - 1 <= h.high_bit < h.bits_allocated:
        raise DicomError(f"HighBit is {h.high_bit} for {h.bits_stored} BitsStored")
    if h.pixel_representation not in (0, 1):
        raise DicomError(f"PixelRepresentation is {h.pixel_representation}, not 0 or 1")
    if h.planar_configuration not in (0, 1):
        raise DicomError(f"PlanarConfiguration is {h.planar_configuration}, not 0 or 1")
    if h.pixel_representation == 1 and not h.is_grey:
        raise DicomError(f"signed samples in {h.photometric_interpretation}")
