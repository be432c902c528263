"""The pictures of a slide that show its label, where a patient's name is written."""

from pydicom import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from osler.errors import UnsupportedError
from osler.ingest.dicom.attributes import value_of


def refuse_glass(ds: Dataset) -> None:
    """Refuse a picture of the label or of the whole glass, whose pixels are never decoded.

    Args:
        ds: with SOPClassUID, ImageType and SpecimenLabelInImage, as far as they are there.

    Raises:
        UnsupportedError: it is one.

    Source: PS3.3 C.8.12.4.1.1 and C.8.12.4.1.5.
    """
    if value_of(ds, "SOPClassUID") != VLWholeSlideMicroscopyImageStorage:
        return
    image_type = value_of(ds, "ImageType") or ()
    flavor = "" if isinstance(image_type, str) else "".join(map(str, image_type[2:3]))
    if flavor != "VOLUME" or value_of(ds, "SpecimenLabelInImage") == "YES":
        raise UnsupportedError(
            "a picture of a slide's label, of the whole glass or of a thumbnail, "
            "where names may be written; it is never read"
        )
