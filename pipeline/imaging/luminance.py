"""Reads the coded luminance of a JPEG, whatever its coding. Its coefficients are kept; no pixels are decoded.

Scans of the luminance alone stay byte for byte. If scans have luma and chroma together, or are coded arithmetically,
libjpeg-turbo decodes them to coefficients and codes those of the luminance anew, in one scan.
"""

import contextlib
import dataclasses

from pipeline.imaging import graft

try:
    from jpegtran.lib import Transformation
except ImportError:  # there is no wheel for this machine
    Transformation = None


def parse(jpeg: bytes) -> graft.Jpeg:
    """Reads the luminance of a grey JPEG, or of one in luma and chroma.

    Raises:
      NotGraftable: it is damaged, of another kind, or its luminance has fewer samples than the picture has pixels.
    """
    for read in (graft.parse, graft.parse_separate):
        with contextlib.suppress(graft.NotGraftable):
            return read(jpeg)
    return dataclasses.replace(graft.parse(_grey(jpeg)), metadata=graft.metadata(jpeg), recoded=True)


def _grey(jpeg: bytes) -> bytes:
    """The JPEG without chroma and metadata, coded sequentially."""
    if Transformation is None:
        raise graft.NotGraftable("its scans cannot be coded anew on this machine")
    try:
        return bytes(Transformation(jpeg).grayscale())
    except Exception as error:  # the package raises nothing more special
        raise graft.NotGraftable(str(error)) from error
