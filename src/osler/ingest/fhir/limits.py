"""How much one record may ask of the machine.

A patient's whole record is rarely more than some tens of megabytes; a bulk export holds many
patients, is read line by line, and only the chosen patient's lines are kept.
"""

MAX_DOCUMENT_BYTES = 256 << 20  # a bundle, a line of NDJSON or a C-CDA document, decompressed
MAX_EXPORT_BYTES = 64 << 30  # all files of an export, after decompression
MAX_FILES = 10_000
MAX_RESOURCES = 1_000_000  # of one patient, or without one
MAX_PATIENTS = 10_000_000  # in one export
MAX_NESTED_BUNDLES = 3
MAX_NESTED_SECTIONS = 20  # of one document
MAX_ITEMS = 1_000  # of one list in a resource: codings, components, series
MAX_TEXT = 2_000  # characters of a name, a dose, a comment
MAX_NOTE = 1_000_000  # characters of a note or report
MAX_XML_DEPTH = 100
RECORD_TIMEOUT_S = 600.0
