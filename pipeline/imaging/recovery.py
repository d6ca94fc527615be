"""Gives a JPEG master back from its grafted derivative.

A derivative has all coding segments of its master: Huffman tables, restart intervals and scans. `remainder` packs the
other bytes of the master, that is, headers, metadata, scans of chroma and whatever follows its end, for the XMP packet
of the derivative. `recover` puts both together again. If the scans were coded anew (see `pipeline.imaging.luminance`),
only the coefficients of the luminance come back.
"""

import hashlib
import itertools
import struct
import zlib
from dataclasses import dataclass

from pipeline.imaging import graft
from pipeline.metadata import embedded, provenance

_RECODED = b"recoded"  # instead of a remainder
_LARGEST = 24 * 1024  # bytes of a remainder; a packet must fit into a segment
_LARGEST_PARTS = 4 * 2**20  # bytes of its parts, unpacked


class NotRecoverable(ValueError):
    """No master can be given back from a file; the message says why."""


@dataclass(frozen=True)
class Recovered:
    """A master that was given back.

    Attributes:
      data: the file.
      exact: whether it is the master to the last byte, by the SHA-256 in the derivative. Otherwise its luminance is
        the master's to the last coefficient, with as few headers as possible.
      why: why it is not exact, in words.
    """

    data: bytes
    exact: bool
    why: str = ""


def remainder(master: graft.Jpeg) -> bytes:
    """Packs the bytes of a master that are not in its coding segments; empty if they do not fit.

    If its scans were coded anew, the result says so.
    """
    if master.recoded:
        return _RECODED
    stops = [0, *(segment.stop for segment in master.coding)]
    starts = [*(segment.start for segment in master.coding), len(master.data)]
    parts = [master.data[stop:start] for stop, start in zip(stops, starts, strict=True)]
    if sum(map(len, parts)) > _LARGEST_PARTS:
        return b""
    sizes = struct.pack(f">BH{len(parts)}I", master.component, len(parts), *map(len, parts))
    packed = zlib.compress(b"".join((sizes, *parts)), 9)
    return packed if len(packed) <= _LARGEST else b""


def recover(derivative: bytes) -> Recovered:
    """Gives the master back.

    Raises:
      NotRecoverable: the file is not a derivative with the luminance of a JPEG, or it has been changed.
    """
    try:
        grafted = graft.parse_separate(derivative)
    except graft.NotGraftable as error:
        raise NotRecoverable(f"it is no derivative of a grey JPEG: {error}") from error
    packet = embedded.packet(derivative)
    record, packed = provenance.read_packet(packet), provenance.read_remainder(packet)
    if record is None or packed is None:
        raise NotRecoverable(
            "its XMP packet names no grey JPEG: the master was another file, its luma was changed by --mark or "
            "--negatives, or a program has removed the packet"
        )
    if not packed:
        why = "its headers, metadata and other scans were too large to be carried along"
        return Recovered(graft.alone(grafted), False, why)
    if packed == _RECODED:
        why = "its scans had luma and chroma together, or were coded arithmetically; its luma is here, as a grey JPEG"
        return Recovered(graft.alone(grafted), False, why)
    component, parts = _unpacked(packed)
    if len(parts) != len(grafted.coding) + 1:
        raise NotRecoverable("its scans have been changed since it was written")
    data = parts[0]
    data += b"".join(
        itertools.chain.from_iterable(
            [*segment, part]
            for segment, part in zip(graft.coding(grafted, component), parts[1:], strict=True)
        )
    )
    if hashlib.sha256(data).hexdigest() != record.source_sha256:
        raise NotRecoverable(
            "it has been changed since it was written: the SHA-256 differs from the master's"
        )
    return Recovered(data, True)


def _unpacked(packed: bytes) -> tuple[int, list[bytes]]:
    """Id of the master's component, and the parts of a `remainder`."""
    try:
        data = zlib.decompressobj().decompress(packed, _LARGEST_PARTS + 2**20)
        component, count = struct.unpack_from(">BH", data)
        sizes = struct.unpack_from(f">{count}I", data, 3)
    except (zlib.error, struct.error) as error:
        raise NotRecoverable(f"the remainder of its master is damaged: {error}") from error
    ends = list(itertools.accumulate(sizes, initial=3 + 4 * count))
    if ends[-1] != len(data):
        raise NotRecoverable("the remainder of its master is damaged")
    return component, [data[start:end] for start, end in itertools.pairwise(ends)]
