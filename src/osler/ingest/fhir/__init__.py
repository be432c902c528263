"""FHIR R4 and C-CDA to one patient's timeline of typed records."""
