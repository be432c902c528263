"""What a model said and saw, as DICOM objects of the study that it was asked about."""
