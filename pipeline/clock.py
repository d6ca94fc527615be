"""The time of day. Dates in records, leases, summaries and model cards come from here."""

from datetime import UTC, datetime


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def label(moment: datetime) -> str:
    """A moment as a part of names, such as 20261127T183000. Names that begin with it sort by time."""
    return moment.strftime("%Y%m%dT%H%M%S")
