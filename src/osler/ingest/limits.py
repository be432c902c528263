"""How much one file, folder or zip may ask of the machine.

The largest single images in use are stitched long-leg films and mammograms of 20 to 60 megapixels.
"""

from osler.errors import UnsupportedError

MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 100_000_000
MAX_FILES = 50_000  # of one folder or zip
MAX_UNPACKED_BYTES = 8 << 30  # of one zip; members are unpacked one by one, in memory
MAX_FRAMES = 20_000  # of one file
SHORT_HEAD_BYTES = 1 << 14  # enough of most slices to know what they are
HEAD_BYTES = 1 << 17  # enough of nearly all files, which may have long private attributes
# A worker's memory grows with the file that it is handed, not with what the file says of itself.
MIN_WORKER_BYTES = 1 << 30
MAX_WORKER_BYTES = 4 << 30
WORKER_BYTES_PER_BYTE = 64  # a photograph's pixels in three copies are 50 times its JPEG
TIMEOUT_S = 60.0


def worker_bytes(input_bytes: int) -> int:
    """How much memory a worker may have for so many bytes of input.

    >>> worker_bytes(1000) == 1 << 30, worker_bytes(1 << 30) == 4 << 30
    (True, True)
    """
    return max(MIN_WORKER_BYTES, min(MAX_WORKER_BYTES, WORKER_BYTES_PER_BYTE * input_bytes))


def inflated_bytes(input_bytes: int) -> int:
    """How much may become of so many bytes that are compressed: a quarter of a worker's memory.

    Images and records rarely shrink to less than a tenth; blank ones to a thousandth.

    >>> inflated_bytes(1000) == 256 << 20, inflated_bytes(1 << 30) == MAX_FILE_BYTES
    (True, True)
    """
    return min(MAX_FILE_BYTES, worker_bytes(input_bytes) // 4)


def check_size(height: int, width: int) -> None:
    """Refuse an image that is too large, before anything is allocated for it.

    Raises:
        UnsupportedError: more than `MAX_PIXELS` pixels.
    """
    if height * width > MAX_PIXELS:
        raise UnsupportedError(
            f"{width} x {height} pixels are more than the {MAX_PIXELS:,} that are read"
        )
