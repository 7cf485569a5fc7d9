"""What we need of a provider's own list of events. No I/O here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """An event as the provider lists it; `payload` is what would have been delivered."""

    event_id: str
    type: str
    payload: Mapping[str, Any]


class Events(Protocol):
    """The port's reads of events."""

    def events_between(
        self, start: datetime, end: datetime, most: int | None
    ) -> list[ListedEvent] | None:
        """All events of [start, end), to the second; None if they are more than `most`."""
        ...
