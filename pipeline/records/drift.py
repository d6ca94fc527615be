"""Drift: collections whose pictures differ from those that the model was tested on."""

from collections.abc import Iterable

ENOUGH = 30  # derivatives in a collection; the median of fewer says little


def drift(collections: dict, ranges: dict, names: Iterable[str]) -> list[dict]:
    """Finds collections whose median is outside of the range of the model card.

    Args:
      collections: as in `summary.json`.
      ranges: as in the model card.
      names: figures that are comparable.

    Returns:
      For each collection and figure outside: `collection`, `figure`, `median`, `range` (5 and 95 %) and `scans`.
    """
    found = []
    for collection, figures in collections.items():
        for name in names:
            if name not in ranges or figures[name]["count"] < ENOUGH:
                continue
            low, _, high = ranges[name]
            median = figures[name]["p50"]
            if not low <= median <= high:
                found.append(
                    {
                        "collection": collection,
                        "figure": name,
                        "median": median,
                        "range": [low, high],
                        "scans": figures[name]["count"],
                    }
                )
    return found


def describe(found: list[dict]) -> str:
    """Describes drift in words, at most ten lines of it."""
    lines = [
        f"  {entry['collection'] or '(no folder)'}: {_NAMES[entry['figure']]} {entry['median']:.3g}, not "
        f"{entry['range'][0]:.3g} to {entry['range'][1]:.3g} ({entry['scans']:,} scans)"
        for entry in found[:10]
    ]
    more = [f"  and {len(found) - 10:,} more"] if len(found) > 10 else []
    first = "look at these collections before you publish them; the model was tested on other pictures:"
    return "\n".join([first, *lines, *more])


_NAMES = {"confidence": "median confidence", "colorfulness": "median colourfulness"}
