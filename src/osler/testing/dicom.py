"""Synthetic single-frame DICOM files in every transfer syntax that is read, with nobody in them."""

import warnings
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset, dcmwrite, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder

Samples = NDArray[np.integer[Any]]

LOSSLESS_SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
)
LOSSY_SYNTAXES = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
)


def make_dicom(
    stored: Samples,
    *,
    syntax: str = uid.ExplicitVRLittleEndian,
    bits_stored: int | None = None,
    frame: bytes | None = None,
    preamble: bool = True,
    **attributes: Any,
) -> bytes:
    """Make a DICOM file of one frame.

    Args:
        stored: integers `(H, W)` or `(H, W, 3)`; their width and sign are the file's.
        syntax: transfer syntax UID.
        bits_stored: how many of the bits are used; all by default.
        frame: the frame's bytes, where not those that `encode_frame` makes of `stored`.
        preamble: False for a bare data set.
        attributes: further attributes by keyword: a value, an element where its representation
            matters, or None to leave it out.

    Returns:
        The file's bytes.
    """
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid.UID("2.25.1")
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.SOPClassUID = uid.SecondaryCaptureImageStorage
    ds.SOPInstanceUID = uid.UID("2.25.1")
    ds.Modality = "OT"
    ds.Rows, ds.Columns = stored.shape[:2]
    ds.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    ds.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    if stored.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 8 * stored.dtype.itemsize
    ds.BitsStored = bits_stored or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    if frame is None:
        frame = encode_frame(stored, syntax, ds.BitsStored)
    is_encapsulated = uid.UID(syntax).is_encapsulated
    if is_encapsulated:
        frame = encapsulate([frame])
    words = ds.BitsAllocated > 8 and not is_encapsulated
    ds.add_new("PixelData", "OW" if words else "OB", frame + bytes(len(frame) % 2))
    ds["PixelData"].is_undefined_length = is_encapsulated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hostile values are wanted here
        for keyword, value in attributes.items():
            if value is None:
                delattr(ds, keyword)
            elif isinstance(value, DataElement):
                ds.add(value)
            else:
                setattr(ds, keyword, value)
        for part in ("Class", "Instance"):
            if f"SOP{part}UID" in ds:
                setattr(ds.file_meta, f"MediaStorageSOP{part}UID", ds[f"SOP{part}UID"].value)
        return _written(ds) if preamble else _written_bare(ds)


def _written(ds: Dataset) -> bytes:
    file = BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def _written_bare(ds: Dataset) -> bytes:
    syntax = ds.file_meta.TransferSyntaxUID
    del ds.file_meta
    file = BytesIO()
    implicit, little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    dcmwrite(file, ds, implicit_vr=implicit, little_endian=little_endian)
    return file.getvalue()


def encode_frame(stored: Samples, syntax: str, bits_stored: int) -> bytes:
    """Encode one frame as a transfer syntax asks; the lossy ones lose a few levels."""
    if syntax in uid.UncompressedTransferSyntaxes:
        swapped = syntax == uid.ExplicitVRBigEndian
        return (stored.byteswap() if swapped else stored).tobytes()
    if syntax == uid.RLELossless:
        return _rle(stored, bits_stored)
    if syntax in uid.JPEG2000TransferSyntaxes:
        return _jpeg_2000(stored, syntax, bits_stored)
    # JPEG and JPEG-LS know no sign; the bits go as they are.
    unsigned = stored.view(f"u{stored.dtype.itemsize}") & ((1 << bits_stored) - 1)
    if syntax in uid.JPEGLSTransferSyntaxes:
        near = 2 if syntax == uid.JPEGLSNearLossless else 0
        return bytes(imagecodecs.jpegls_encode(unsigned, near))
    return _jpeg(unsigned, syntax, bits_stored)


def _rle(stored: Samples, bits_stored: int) -> bytes:
    color = stored.ndim == 3
    return get_encoder(uid.RLELossless).encode(
        stored,
        rows=stored.shape[0],
        columns=stored.shape[1],
        samples_per_pixel=3 if color else 1,
        number_of_frames=1,
        bits_allocated=8 * stored.dtype.itemsize,
        bits_stored=bits_stored,
        pixel_representation=int(stored.dtype.kind == "i"),
        photometric_interpretation="RGB" if color else "MONOCHROME2",
        planar_configuration=0,
    )


def _jpeg(unsigned: Samples, syntax: str, bits_stored: int) -> bytes:
    lossless = syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1)
    space = None
    if unsigned.ndim == 3:
        space = "rgb" if lossless else "ycbcr"
    return bytes(
        imagecodecs.jpeg8_encode(
            unsigned,
            level=None if lossless else 100,
            lossless=lossless,
            predictor=1 if syntax == uid.JPEGLosslessSV1 else 4,
            bitspersample=bits_stored,
            colorspace=space and "rgb",
            outcolorspace=space,
            subsampling=space and "444",
        )
    )


def _jpeg_2000(stored: Samples, syntax: str, bits_stored: int) -> bytes:
    if syntax in (uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL):
        return bytes(imagecodecs.htj2k_encode(stored, reversible=syntax != uid.HTJ2K))
    lossless = syntax == uid.JPEG2000Lossless
    return bytes(
        imagecodecs.jpeg2k_encode(
            stored,
            codecformat="j2k",
            level=0 if lossless else 100,
            reversible=lossless,
            bitspersample=bits_stored,
        )
    )
