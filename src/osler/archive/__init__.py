"""Hospitals' archives: studies fetched, received and sent; results written as DICOM."""
