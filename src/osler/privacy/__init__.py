"""DICOM objects, FHIR records and text without whom they are about.

As in `osler.ingest`, every byte is hostile: files are parsed, cleaned and written anew in a
killable child process with bounded memory and time.
"""
