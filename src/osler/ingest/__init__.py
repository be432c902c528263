"""Bytes to typed records: pictures and DICOM."""
