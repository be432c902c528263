"""How much one file, folder or zip may ask of the machine.

The largest single images in use are stitched long-leg films and mammograms of 20 to 60 megapixels.
"""

from osler.errors import UnsupportedError

MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 100_000_000
MAX_FILES = 50_000  # of one folder or zip
MAX_UNPACKED_BYTES = 8 << 30  # of one zip; members are unpacked one by one, in memory
MAX_FRAMES = 20_000  # of one file
HEAD_BYTES = 1 << 17  # enough of most files to know what they are
MAX_WORKER_BYTES = 4 << 30
TIMEOUT_S = 60.0


def check_size(height: int, width: int) -> None:
    """Refuse an image that is too large, before anything is allocated for it.

    Raises:
        UnsupportedError: more than `MAX_PIXELS` pixels.
    """
    if height * width > MAX_PIXELS:
        raise UnsupportedError(
            f"{width} x {height} pixels are more than the {MAX_PIXELS:,} that are read"
        )
