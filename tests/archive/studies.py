"""Studies for archives: small, in several transfer syntaxes, with nobody in them."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid

from osler.archive.instance import InstanceFile, data_set_blocks
from osler.archive.push import gather
from osler.testing.dicom import make_dicom

SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.JPEG2000Lossless,
    uid.ImplicitVRLittleEndian,
    uid.RLELossless,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
STUDY, OTHER_STUDY = "2.25.1000", "2.25.2000"


def make_instance(
    number: int, *, study: str = STUDY, series: int = 1, patient: str = "P1", **attributes: Any
) -> bytes:
    stored = np.random.default_rng(number).integers(0, 4096, (16, 24), dtype=np.uint16)
    wanted: dict[str, Any] = {
        "syntax": SYNTAXES[0],
        "SOPClassUID": uid.CTImageStorage,
        "SOPInstanceUID": f"{study}.{series}.{number}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.{series}",
        "PatientID": patient,
        "PatientName": "Nobody^Nowhere",
        "PatientBirthDate": "19500101",
        "PatientSex": "O",
        "StudyDate": "20240102",
        "StudyTime": "101112",
        "StudyID": "1",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": None,
        "Modality": "CT",
        **attributes,
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    return make_dicom(stored, **given)


def write_study(
    folder: Path, count: int = 6, *, study: str = STUDY, syntaxes=SYNTAXES[:1], **attributes: Any
) -> list[Path]:
    """Instances in two series, the syntaxes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(1, count + 1):
        path = folder / f"{study}-{number}.dcm"
        syntax = syntaxes[number % len(syntaxes)]
        series = 1 + number % 2
        path.write_bytes(
            make_instance(number, study=study, series=series, syntax=syntax, **attributes)
        )
        paths.append(path)
    return paths


def data_sets(*paths: Path) -> dict[str, tuple[str, bytes]]:
    """By SOP instance UID: the transfer syntax, and the bytes of the data set."""
    return {file.instance.sop_uid: (file.transfer_syntax, data_set(file)) for file in gather(paths)}


def data_set(file: InstanceFile) -> bytes:
    return b"".join(data_set_blocks(file))
