"""DICOM objects to `Image`s and facts; runs in the decoding worker."""
