"""Colours with a profile of their own become sRGB; all else is left as it is."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageCms

from osler.ingest import read_image_bytes
from osler.testing.dicom import make_dicom

RGB = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# sRGB with red and green exchanged, under another name.
SWAPPED = (
    SRGB.replace(b"rXYZ", b"xXYZ")
    .replace(b"gXYZ", b"rXYZ")
    .replace(b"xXYZ", b"gXYZ")
    .replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
)
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def test_a_picture_in_another_space() -> None:
    file = BytesIO()
    PilImage.fromarray(RGB).save(file, "PNG", icc_profile=SWAPPED)
    values = read_image_bytes(file.getvalue(), "x.png").values
    np.testing.assert_allclose(values, RGB[:, :, [1, 0, 2]], atol=2)


def test_a_dicom_object_in_another_space() -> None:
    values = read_image_bytes(make_dicom(RGB, ICCProfile=SWAPPED), "x.dcm").values
    np.testing.assert_allclose(values, RGB[:, :, [1, 0, 2]], atol=2)


@pytest.mark.parametrize("profile", [SRGB, LAB, SWAPPED[:300], b"no profile", b"\0" * 132])
def test_srgb_and_profiles_of_no_use_change_nothing(profile: bytes) -> None:
    file = BytesIO()
    PilImage.fromarray(RGB).save(file, "PNG", icc_profile=profile)
    np.testing.assert_array_equal(read_image_bytes(file.getvalue(), "x.png").values, RGB)
    even = profile + bytes(len(profile) % 2)
    image = read_image_bytes(make_dicom(RGB, ICCProfile=even), "x.dcm")
    np.testing.assert_array_equal(image.values, RGB)
