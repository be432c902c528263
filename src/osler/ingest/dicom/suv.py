"""Standardised uptake values of a PET, where the object says all that they need."""

import math
from datetime import datetime, timedelta

from pydicom import Dataset

from osler.errors import DicomError
from osler.ingest.dicom.attributes import MALFORMED, all_numbers, items_of, value_of

_GE, _PHILIPS = (0x0009, "GEMS_PETD_01"), (0x7053, "Philips PET Private Group")
_GE_SCAN_DATETIME = 0x0D
_PHILIPS_SUV_SCALE_FACTOR, _PHILIPS_ACTIVITY_SCALE_FACTOR = 0x00, 0x09
_PRIVATE_TAGS = (
    *(0x00090010, 0x0009100D),  # the creators reserve the first block, in all that is known
    *(0x70530010, 0x70531000, 0x70531009),
)
# What the value needs, as `read_header` takes it.
SUV_ATTRIBUTES = (
    *("Units", "SUVType", "CorrectedImage", "DecayCorrection", "PatientWeight", "SeriesDate"),
    *("SeriesTime", "AcquisitionDate", "AcquisitionTime", "RadiopharmaceuticalInformationSequence"),
    *_PRIVATE_TAGS,
)
_LONGEST_UPTAKE = timedelta(days=1)


def suv_per_unit(ds: Dataset) -> float | None:
    """What one unit of the values is as a body-weight SUV in g/ml, or None where it is not known.

    Becquerel per millilitre are divided by the dose per gram that is left at the start of the
    series, to which a scanner corrects the decay. Values in g/ml are SUVs already, and Philips says
    what one of its counts is. Siemens' later series, which say it by way of the frames' times, are
    not worked out.

    Source: PS3.3 C.8.9.1; QIBA's vendor-neutral SUV calculation.
    """
    try:
        units = str(value_of(ds, "Units") or "")
        if units == "GML":
            return 1.0 if str(value_of(ds, "SUVType") or "BW") == "BW" else None
        if units not in ("BQML", "CNTS") or not _is_corrected(ds):
            return None
        bq_per_ml = 1.0
        if units == "CNTS":
            if factor := _factor(ds, _PHILIPS_SUV_SCALE_FACTOR):
                return factor
            bq_per_ml = _factor(ds, _PHILIPS_ACTIVITY_SCALE_FACTOR)
        drug = items_of(ds, "RadiopharmaceuticalInformationSequence")[0]
        (weight_kg,) = all_numbers(ds, "PatientWeight")
        (dose_bq,) = all_numbers(drug, "RadionuclideTotalDose")
        (half_life_s,) = all_numbers(drug, "RadionuclideHalfLife")
        decay = str(value_of(ds, "DecayCorrection") or "")
        uptake_s = 0.0 if decay == "ADMIN" else _uptake_s(ds, drug)
        left_bq = dose_bq * 2 ** (-uptake_s / half_life_s)
        suv = bq_per_ml * weight_kg * 1000 / left_bq
    except (DicomError, *MALFORMED):
        return None
    return suv if decay in ("ADMIN", "START") and 0 < suv < math.inf else None


def _is_corrected(ds: Dataset) -> bool:
    corrections = value_of(ds, "CorrectedImage") or ()
    return {"ATTN", "DECY"} <= {str(one) for one in corrections}


def _factor(ds: Dataset, element: int) -> float:
    """A factor of Philips'; 0 where there is none."""
    said = _private(ds, *_PHILIPS, element)
    factor = float(said) if said else 0.0
    return factor if 0 < factor < math.inf else 0.0


def _private(ds: Dataset, group: int, creator: str, element: int) -> str:
    """A private element as text; "" where there is none."""
    try:
        value = ds.private_block(group, creator)[element].value
    except KeyError:
        return ""
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _uptake_s(ds: Dataset, drug: Dataset) -> float:
    """From the injection to the start of the scan.

    Raises:
        ValueError: no times, or a series written later than its images, whose time says nothing.
    """
    series = _moment(ds, "SeriesDate", "SeriesTime")
    if series > _moment(ds, "AcquisitionDate", "AcquisitionTime"):
        series = _parsed(_private(ds, *_GE, _GE_SCAN_DATETIME))
    injected = value_of(drug, "RadiopharmaceuticalStartDateTime")
    if injected is not None:
        start = _parsed(str(injected)[:14])
    else:
        start = _parsed(f"{series:%Y%m%d}" + str(value_of(drug, "RadiopharmaceuticalStartTime")))
        if start > series:  # before midnight
            start -= timedelta(days=1)
    if not timedelta(0) <= series - start < _LONGEST_UPTAKE:
        raise ValueError("an uptake of no sense")
    return (series - start).total_seconds()


def _moment(ds: Dataset, date: str, time: str) -> datetime:
    return _parsed(f"{value_of(ds, date)}{value_of(ds, time)}")


def _parsed(digits: str) -> datetime:
    return datetime.strptime(digits[:14], "%Y%m%d%H%M%S")
