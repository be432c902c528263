"""Small whole slides of known pixels: tiled TIFF, Aperio's SVS, pyramids in DICOM."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as PilImage
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    VLWholeSlideMicroscopyImageStorage,
)

Pixels = NDArray[np.uint8]
Tile = tuple[int, int, Pixels]  # left, top
TILE_PX = 256
GLASS = (243, 241, 244)
STAIN = (201, 118, 176)
_SERIES = "2.25.71"


def tissue(height: int, width: int, *, seed: int = 0) -> Pixels:
    """A piece of stained tissue on glass: an ellipse left of the middle, with grain in it."""
    rows, columns = np.ogrid[:height, :width]
    inside = ((columns / width - 0.4) / 0.3) ** 2 + ((rows / height - 0.5) / 0.35) ** 2 < 1
    picture = np.where(inside[:, :, np.newaxis], np.array(STAIN), np.array(GLASS))
    grain = np.random.default_rng(seed).integers(-12, 13, (height // 4 + 1, width // 4 + 1, 3))
    grain = grain.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return np.clip(picture + grain * inside[:, :, np.newaxis], 0, 255).astype(np.uint8)


def pyramid(base: Pixels, count: int, *, factor: int = 2) -> list[Pixels]:
    """A picture and smaller copies of it, each the mean of squares of the one before."""
    levels = [base]
    for _ in range(count - 1):
        picture = PilImage.fromarray(levels[-1])
        levels.append(np.asarray(picture.reduce(factor)))
    return levels


def write_tiff(
    path: Path, levels: Sequence[Pixels], *, mpp: float | None = 0.5, compression: str = "deflate"
) -> Path:
    """A tiled TIFF, whose resolution says how large a pixel is, or says nothing."""
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            scale = levels[0].shape[1] / level.shape[1]
            size: dict[str, Any] = {}
            if mpp is not None:
                size = {"resolution": (1e4 / mpp / scale,) * 2, "resolutionunit": "CENTIMETER"}
            tiff.write(
                level,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression=compression,
                subfiletype=int(number > 0),
                metadata=None,
                **size,
            )
    return path


def write_svs(
    path: Path, levels: Sequence[Pixels], *, told: str = "AppMag = 20|MPP = 0.5000"
) -> Path:
    """What an Aperio scanner writes: levels, a thumbnail, and pictures of label and glass."""
    height, width = levels[0].shape[:2]
    about = f"Aperio Image Library v12.0.15\r\n{width}x{height} (256x256) JPEG/RGB Q=70|{told}"
    label = np.zeros((60, 50, 3), np.uint8)  # black: nothing of it may be seen anywhere
    tiles: dict[str, Any] = {
        "tile": (TILE_PX, TILE_PX),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 95},
        "metadata": None,
    }
    strips: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(levels[0], description=about, **tiles)
        tiff.write(levels[-1], description=about, **strips)
        for level in levels[1:]:
            tiff.write(level, description=about, **tiles)
        for name, kind in (("label", 1), ("macro", 9)):
            tiff.write(
                label,
                description=f"Aperio Image Library v12.0.15\r\n{name} 50x60",
                subfiletype=kind,
                **strips,
            )
    return path


def write_dicom(
    folder: Path,
    levels: Sequence[Pixels],
    *,
    mpp: float = 0.5,
    organization: Literal["TILED_FULL", "TILED_SPARSE"] = "TILED_FULL",
    syntax: str = ExplicitVRLittleEndian,
    has_holes: bool = False,
    **attributes: Any,
) -> Path:
    """A pyramid in DICOM, one file a level, with the pictures of its label and of the glass.

    Args:
        folder: for the files.
        levels: the largest first.
        mpp: micrometres per pixel of the largest.
        organization: how tiles say where they lie.
        syntax: uncompressed, JPEG or JPEG 2000.
        has_holes: leave out the tiles without tissue; of a sparse one.
        attributes: further attributes of the levels, by keyword.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, level in enumerate(levels):
        scale = levels[0].shape[1] / level.shape[1]
        tiles = [tile for tile in _tiles(level) if not (has_holes and _is_glass(tile[2]))]
        ds = _level(level, tiles, mpp * scale, organization, syntax, number + 1, "VOLUME")
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        dcmwrite(folder / f"level-{number}.dcm", ds, enforce_file_format=True)
    for number, flavor in enumerate(("LABEL", "OVERVIEW"), start=len(levels)):
        black = np.zeros((90, 60, 3), np.uint8)
        tiles = list(_tiles(black))
        ds = _level(black, tiles, 20.0, "TILED_FULL", ExplicitVRLittleEndian, number + 1, flavor)
        dcmwrite(folder / f"{flavor.lower()}.dcm", ds, enforce_file_format=True)
    return folder


def _level(
    picture: Pixels,
    tiles: Sequence[Tile],
    mpp: float,
    organization: str,
    syntax: str,
    number: int,
    flavor: str,
) -> Dataset:
    height, width = picture.shape[:2]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    ds.SOPInstanceUID = f"{_SERIES}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.70", _SERIES
    ds.FrameOfReferenceUID = "2.25.72"
    ds.PositionReferenceIndicator = "SLIDE_CORNER"
    ds.Modality = "SM"
    ds.PatientName, ds.PatientID = "Planted^Name", "PLANTED-ID"
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    ds.ImageType = ["ORIGINAL" if number == 1 else "DERIVED", "PRIMARY", flavor]
    ds.ImageType += ["NONE" if number == 1 else "RESAMPLED"]
    ds.AcquisitionDateTime = "20240101120000"
    ds.ContainerIdentifier = "PLANTED-BOX"
    ds.VolumetricProperties = "VOLUME"
    ds.SpecimenLabelInImage = "YES" if flavor != "VOLUME" else "NO"
    ds.BurnedInAnnotation = "NO"
    ds.FocusMethod, ds.ExtendedDepthOfField = "AUTO", "NO"
    ds.ImagedVolumeWidth, ds.ImagedVolumeHeight = width * mpp / 1000, height * mpp / 1000
    ds.ImagedVolumeDepth = 1.0
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = width, height
    ds.TotalPixelMatrixFocalPlanes = 1
    ds.NumberOfOpticalPaths = 1
    ds.TotalPixelMatrixOriginSequence = [
        _item(XOffsetInSlideCoordinateSystem=20.0, YOffsetInSlideCoordinateSystem=40.0)
    ]
    ds.OpticalPathSequence = [_item(OpticalPathIdentifier="0", ObjectiveLensPower=20.0)]
    ds.DimensionOrganizationType = organization
    ds.NumberOfFrames = len(tiles)
    ds.Rows = ds.Columns = TILE_PX
    ds.SamplesPerPixel, ds.PlanarConfiguration = 3, 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PhotometricInterpretation = _PHOTOMETRIC[syntax]
    ds.LossyImageCompression = "01" if syntax in (JPEGBaseline8Bit, JPEG2000) else "00"
    measures = _item(
        PixelSpacing=[f"{mpp / 1000:.8g}"] * 2, SliceThickness="0.001", SpacingBetweenSlices="0.001"
    )
    shared = _item(PixelMeasuresSequence=[measures])
    path = _item(OpticalPathIdentifier="0")
    if organization == "TILED_FULL":
        shared.OpticalPathIdentificationSequence = [path]
    else:
        ds.PerFrameFunctionalGroupsSequence = [
            _item(
                OpticalPathIdentificationSequence=[path],
                PlanePositionSlideSequence=[
                    _item(
                        ColumnPositionInTotalImagePixelMatrix=left + 1,
                        RowPositionInTotalImagePixelMatrix=top + 1,
                        XOffsetInSlideCoordinateSystem=f"{20 - top * mpp / 1000:.6g}",
                        YOffsetInSlideCoordinateSystem=f"{40 - left * mpp / 1000:.6g}",
                        ZOffsetInSlideCoordinateSystem=0.0,
                    )
                ],
            )
            for left, top, _ in tiles
        ]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = [_coded(tile, syntax) for _, _, tile in tiles]
    if syntax == ExplicitVRLittleEndian:
        ds.PixelData = b"".join(frames)
    else:
        ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    return ds


_PHOTOMETRIC: dict[str, str] = {
    ExplicitVRLittleEndian: "RGB",
    JPEGBaseline8Bit: "YBR_FULL_422",
    JPEG2000: "YBR_ICT",
    JPEG2000Lossless: "YBR_RCT",
}


def _tiles(picture: Pixels) -> Iterator[Tile]:
    """(left, top, pixels) row by row, those at the edges filled up with white."""
    height, width = picture.shape[:2]
    rows, columns = math.ceil(height / TILE_PX), math.ceil(width / TILE_PX)
    whole = np.full((rows * TILE_PX, columns * TILE_PX, 3), 255, np.uint8)
    whole[:height, :width] = picture
    for top in range(0, rows * TILE_PX, TILE_PX):
        for left in range(0, columns * TILE_PX, TILE_PX):
            yield left, top, whole[top : top + TILE_PX, left : left + TILE_PX]


def _is_glass(tile: Pixels) -> bool:
    return bool((tile.min(axis=2) >= min(GLASS)).all())


def _coded(tile: Pixels, syntax: str) -> bytes:
    if syntax == ExplicitVRLittleEndian:
        return tile.tobytes()
    picture, data = PilImage.fromarray(tile), io.BytesIO()
    if syntax == JPEGBaseline8Bit:
        picture.save(data, "JPEG", quality=95, subsampling="4:2:2")
    elif syntax == JPEG2000Lossless:
        picture.save(data, "JPEG2000", no_jp2=True, mct=1)
    else:
        lossy = {"irreversible": True, "quality_mode": "dB", "quality_layers": [50]}
        picture.save(data, "JPEG2000", no_jp2=True, mct=1, **lossy)
    return data.getvalue()


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
