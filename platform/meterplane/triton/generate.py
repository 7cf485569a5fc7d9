"""Triton's generate protocol: server-sent events of one JSON object each, without an end marker.

`EventReader` takes bytes split anywhere and gives whole events. Triton may answer 200 and an
`error` inside: `failure_of` looks at every event.
"""

from typing import Any

import msgspec

from meterplane.triton.failures import TritonBroken

EVENT_BYTES_MAX = 1024 * 1024


class EventReader:
    """Bytes in, events out; keeps what is not yet whole."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events completed by `data`. Raises `TritonBroken` on anything that is not one."""
        rest = self._rest + data
        if b"\r" in rest:
            rest = rest.replace(b"\r\n", b"\n")
        *whole, self._rest = rest.split(b"\n\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise TritonBroken(f"an event is larger than {EVENT_BYTES_MAX} bytes")
        return [event for block in whole if (event := _read(block)) is not None]

    def finish(self) -> None:
        """The body has ended. Raises `TritonBroken` when it ended inside an event."""
        if self._rest.strip():
            raise TritonBroken("it ended inside an event")


def _read(block: bytes) -> dict[str, Any] | None:
    data = b"".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:"))
    if not data:
        return None  # a comment, or nothing
    try:
        event = msgspec.json.decode(data)
    except msgspec.DecodeError as problem:
        raise TritonBroken(f"an event is not JSON ({problem})") from None
    if not isinstance(event, dict):
        raise TritonBroken("an event is not an object")
    return event


def failure_of(event: dict[str, Any]) -> str | None:
    """The error text of an event, if that is what it is."""
    error = event.get("error")
    return str(error) if error is not None else None


def error_text(body: bytes) -> str:
    """The error text of an answer that is not 200, bounded. A stream's is inside an event."""
    try:
        document = msgspec.json.decode(body.removeprefix(b"data:").strip())
    except msgspec.DecodeError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        return str(document["error"])[:2000]
    return "the inference server refused the request"
