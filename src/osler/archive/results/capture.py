"""What the model saw, as Secondary Capture images (PS3.3 A.8.1)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage

from osler.archive.results.attributes import IMAGE
from osler.archive.results.base import coded, new_result, refer_to_sources
from osler.archive.results.draft import Draft
from osler.archive.results.source import Sources, references
from osler.errors import InputError


def captures(
    draft: Draft, sources: Sources, squares_HW3: Sequence[NDArray[np.uint8]]
) -> list[Dataset]:
    """Write the pictures that a model was given as one series.

    Args:
        draft: what the model said of them.
        sources: what they were made from.
        squares_HW3: RGB, (H, W, 3) each.

    Raises:
        InputError: a picture of another shape or kind.
    """
    series = None
    made = []
    for number, square_HW3 in enumerate(squares_HW3, start=1):
        if square_HW3.dtype != np.uint8 or square_HW3.ndim != 3 or square_HW3.shape[2] != 3:
            raise InputError("what the model saw must be RGB of eight bits")
        ds = _capture(draft, sources, square_HW3)
        series = series or ds.SeriesInstanceUID
        ds.SeriesInstanceUID = series
        ds.InstanceNumber = number
        made.append(ds)
    return made


def _capture(draft: Draft, sources: Sources, square_HW3: NDArray[np.uint8]) -> Dataset:
    ds = new_result(
        draft,
        sources,
        sop_class=SecondaryCaptureImageStorage,
        modality="OT",
        series=2,
        name="What the model saw",
    )
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = None
    ds.DerivationDescription = "Windowed, brought to a square and resized for the model."
    ds.ImageComments = f"{draft.notice} {draft.provenance}"
    purpose = coded(codes.DCM.SourceImageForImageProcessingOperation)
    ds.SourceImageSequence = references(sources.instances, purpose=purpose)
    ds.Laterality = None  # type 2C: to be there, if empty
    for keyword in IMAGE:
        if keyword in sources.current:
            ds.add(sources.current[keyword])
    refer_to_sources(ds, sources)
    ds.Rows, ds.Columns = square_HW3.shape[:2]
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    data = square_HW3.tobytes()
    ds.add_new("PixelData", "OB", data + bytes(len(data) % 2))
    return ds
