"""The distribution of a figure over any number of records, in bounded memory."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_BINS = 32  # per doubling of a value: quantiles are exact to about 2 %


@dataclass
class Distribution:
    """Counts of values that are 0 or more, in logarithmic bins. Distributions can be merged in any order."""

    counts: Counter = field(default_factory=Counter)
    total: float = 0.0

    def add(self, value: float) -> "Distribution":
        self.counts[round(_BINS * math.log2(value)) if value > 0 else None] += 1
        self.total += value
        return self

    def merge(self, others: Iterable["Distribution"]) -> "Distribution":
        for other in others:
            self.counts.update(other.counts)
            self.total += other.total
        return self

    def quantile(self, share: float) -> float:
        """The value below which this share of the values lies; 0 without values."""
        left = share * self.counts.total()
        for name in sorted(self.counts, key=lambda name: -math.inf if name is None else name):
            left -= self.counts[name]
            if left <= 0:
                return 0.0 if name is None else 2 ** (name / _BINS)
        return 0.0

    def to_dict(self) -> dict[str, float]:
        """Number of values, mean, and the quantiles at 5, 50 and 95 %, ready for JSON."""
        count = self.counts.total()
        quantiles = {f"p{round(100 * share)}": _short(self.quantile(share)) for share in (0.05, 0.5, 0.95)}
        return {"count": count, "mean": _short(self.total / count) if count else 0.0, **quantiles}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
