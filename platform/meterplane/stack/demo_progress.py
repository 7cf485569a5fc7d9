"""How far the demo's history has come, kept between starts. Needs neither Django nor a server."""

import msgspec

from meterplane.stack.layout import Layout, write_private


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The history ends at `until_ms`; it is complete when it was written, invoiced and paid."""

    until_ms: int
    is_complete: bool = False


def read(layout: Layout) -> Progress | None:
    """What was stored; None before the first start."""
    try:
        return msgspec.json.decode(layout.demo.read_bytes(), type=Progress)
    except FileNotFoundError:
        return None


def store(layout: Layout, progress: Progress) -> None:
    """Replace what was stored."""
    write_private(layout.demo, msgspec.json.encode(progress))


def is_complete(layout: Layout) -> bool:
    """True once there is nothing left to load."""
    found = read(layout)
    return found is not None and found.is_complete
