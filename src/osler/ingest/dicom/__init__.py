"""Single-frame DICOM objects to `Image`; runs in the decoding worker."""
