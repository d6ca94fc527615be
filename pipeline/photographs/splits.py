"""The splits of photographs, which depend on their content."""

import hashlib
from collections.abc import Sequence

PARTS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)


def part_of(digest: str, shares: Sequence[float] = SHARES) -> str:
    """Split of a group with this smallest digest, hexadecimal. The `shares` of the splits sum to 1."""
    # The digest is hashed again, because the smallest of many digests is not uniformly distributed.
    share = int(hashlib.sha256(digest.encode()).hexdigest()[:8], 16) / 0x100000000
    return PARTS[0] if share < shares[0] else PARTS[1] if share < shares[0] + shares[1] else PARTS[2]
