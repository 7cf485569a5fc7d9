"""What usage waits on this disk to be taken in, in a line for whoever operates it."""

from pathlib import Path

from meterplane.journal.backlog import Backlog, measure

# A segment is taken in within a second: what waits this long waits for somebody.
WAITS_LONG_S = 60


def line_of(backlog: Backlog) -> str:
    """How much, and since when."""
    if not backlog.segments:
        return "no usage waits to be taken in"
    segments = f"{backlog.segments:,} segment{'s' if backlog.segments > 1 else ''}"
    megabytes = max(0.1, backlog.size_bytes / 1024**2)
    since = _long(int(backlog.oldest_s))
    return f"{segments} of usage ({megabytes:,.1f} MB) wait to be taken in, since {since} ago"


def found_in(folder: Path) -> Backlog | None:
    """None where there is no journal, or it cannot be read."""
    try:
        return measure(folder)
    except OSError:
        return None


def _long(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 2 * 86_400 else f"{seconds // 86_400} days"
