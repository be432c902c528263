"""imagecodecs as one more of pydicom's pixel data decoders; pydicom asks for these two names.

Not for RLE, which it reads beyond the end of where a file is damaged.
"""

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import DecodeRunner

_SYNTAXES = (
    *uid.JPEGTransferSyntaxes,
    *uid.JPEGLSTransferSyntaxes,
    uid.JPEG2000,
    uid.JPEG2000Lossless,
    uid.HTJ2K,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
)
DECODER_DEPENDENCIES = dict.fromkeys(_SYNTAXES, ("imagecodecs",))


def is_available(syntax: str) -> bool:
    """Whether this plugin decodes a transfer syntax."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(codestream: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame for pydicom, which is told how wide the samples came out."""
    syntax = runner.transfer_syntax
    if syntax in uid.JPEGLSTransferSyntaxes:
        samples = imagecodecs.jpegls_decode(codestream)
    elif syntax in uid.JPEG2000TransferSyntaxes:
        samples = imagecodecs.jpeg2k_decode(codestream)
        if runner.photometric_interpretation in (
            PhotometricInterpretation.YBR_ICT,
            PhotometricInterpretation.YBR_RCT,
        ):
            runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)
    elif runner.samples_per_pixel == 3:
        # Saying that both sides are YCbCr leaves the components as they are, whatever they are.
        samples = imagecodecs.jpeg8_decode(codestream, colorspace="ycbcr", outcolorspace="ycbcr")
    else:
        samples = imagecodecs.jpeg8_decode(codestream)
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * samples.dtype.itemsize)
    return np.ascontiguousarray(samples).tobytes()
