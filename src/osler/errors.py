"""Every error that Osler raises on purpose.

    OslerError
    ├── InputError               what the user handed in cannot be used
    │   ├── UnreadableFileError  empty, a folder, not there, not what its name says
    │   ├── DicomError           a DICOM object without usable pixels, or malformed
    │   ├── RecordError          a record of a patient that holds nothing, or not whom was asked for
    │   ├── UnsupportedError     well-formed, but of a kind that Osler does not handle
    │   └── PromptError          messages, questions or arguments that make no prompt
    ├── ModelNotFoundError       no model by that name, in that folder or on the hub
    ├── CheckpointError          a folder that does not hold the model that it says
    │   ├── CorruptFileError     truncated, a broken header, a pickle
    │   ├── MissingKeyError      weights that the configuration asks for
    │   ├── UnusedKeyError       weights that nothing asks for
    │   └── ShapeMismatchError   weights of another shape
    ├── NonFiniteError           a model that gives NaN or infinite scores
    ├── MemoryLimitError         a model whose keys and values have no room in memory
    ├── QueueFullError           an engine that has as much work as it takes
    ├── RemoteEngineError        a server that is out of reach or does not answer as it should
    ├── ServerSettingsError      settings that `osler serve` does not start with
    ├── ArchiveError             an archive that refuses, or does not answer as it should
    │   └── ArchiveUnreachableError  out of reach, silent or broken off: worth trying again
    └── GenerationCancelledError the caller cancelled before the answer's end

Messages are one line and name the file and the reason. They never hold patient data: no values of
DICOM attributes other than those that describe the pixels, no text of a record.
"""


class OslerError(Exception):
    """Base of all; the command line prints it in one line and exits with 1."""


class InputError(OslerError):
    """What the user handed in cannot be used."""


class UnreadableFileError(InputError):
    """A file that is not there, is empty, is a folder, or is not what its name says."""


class DicomError(InputError):
    """A DICOM object that is malformed or has no usable pixels."""


class RecordError(InputError):
    """A FHIR or C-CDA record that holds no resource, or several patients and none was chosen."""


class UnsupportedError(InputError):
    """Well-formed input of a kind that Osler does not handle."""


class PromptError(InputError):
    """Messages or arguments that make no prompt for this model."""


class ModelNotFoundError(OslerError):
    """No model by that name, in that folder, or on the hub."""


class CheckpointError(OslerError):
    """A folder that does not hold the model that its configuration describes."""


class CorruptFileError(CheckpointError):
    """A weight file that is truncated, has a broken header, or is a pickle."""


class MissingKeyError(CheckpointError):
    """Weights that the configuration asks for and no file holds."""


class UnusedKeyError(CheckpointError):
    """Weights in a file that nothing in the model asks for."""


class ShapeMismatchError(CheckpointError):
    """Weights of another shape than the configuration's."""


class NonFiniteError(OslerError):
    """A model's scores are NaN or infinite, as where float16 overflows."""


class MemoryLimitError(OslerError):
    """The memory given to keys and values does not hold even one request's."""


class QueueFullError(OslerError):
    """An engine has as much work, or as many bytes of it, as it takes; try again later."""


class RemoteEngineError(OslerError):
    """A server is out of reach, refuses, or does not answer as the protocol says."""


class ServerSettingsError(OslerError):
    """Settings that a server does not start with, such as an open address without a token."""


class ArchiveError(OslerError):
    """An archive refuses, or does not answer as the standard says; or its folder cannot be used."""


class ArchiveUnreachableError(ArchiveError):
    """An archive is out of reach, silent, too busy, or broke off; the same may succeed later."""


class GenerationCancelledError(OslerError):
    """The caller cancelled before the answer was complete."""
