"""Server-sent events as inference servers send them, and errors inside a success.

`RawEvents` takes bytes split anywhere and gives the data of each whole event, to be passed on or
looked into; `EventReader` gives them decoded. Any split of the same bytes gives the same events.
Lines may end in LF, CR LF or CR; comments and other fields are no events. An event's several
`data` lines become one, joined by a space: to JSON that is what a line break is, and what is
passed on stays one line.

Triton's generate protocol sends one JSON object an event and no end marker, and it may answer 200
and an `error` inside: `failure_of` looks at every event. An OpenAI-compatible server ends with
`[DONE]`, which is no JSON: read it with `RawEvents`.
"""

from typing import Any

import msgspec

from meterplane.triton.failures import TritonBroken

EVENT_BYTES_MAX = 1024 * 1024

DONE = b"[DONE]"


class RawEvents:
    """Bytes in, the data of whole events out; keeps what is not yet whole."""

    __slots__ = ("_after_cr", "_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of an event that has begun; never with its end
        self._size = 0
        self._after_cr = False  # the last line ended in CR: a LF that follows belongs to it

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events completed by `data`, without the spaces around it.

        Raises `TritonBroken` when an event is larger than `EVENT_BYTES_MAX`.
        """
        # Whole events of one data line each are what servers send and networks deliver.
        if (
            not self._parts
            and data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and b"\r" not in data
            and len(data) <= EVENT_BYTES_MAX
        ):
            events = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(events):
                self._after_cr = False
                return [stripped for event in events if (stripped := event.strip())]
        return self._feed_any(data)

    def finish(self) -> None:
        """The body has ended. Raises `TritonBroken` when it ended inside an event."""
        if any(part.strip() for part in self._parts):
            raise TritonBroken("it ended inside an event")

    def _feed_any(self, data: bytes) -> list[bytes]:
        data = self._with_lf(data)
        if not data:
            return []
        # An end may lie across the border. Looked for there, and not in all that was kept: a
        # server that drips an event would make that quadratic.
        kept_lf = bool(self._parts) and self._parts[-1].endswith(b"\n")
        if b"\n\n" not in data and not (kept_lf and data.startswith(b"\n")):
            self._keep(data)
            return []
        *blocks, rest = b"".join([*self._parts, data]).split(b"\n\n")
        self._parts, self._size = [], 0
        events = []
        for block in blocks:
            if len(block) > EVENT_BYTES_MAX:
                raise TritonBroken(f"an event is larger than {EVENT_BYTES_MAX} bytes")
            if event := _data_of(block):
                events.append(event)
        self._keep(rest)
        return events

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > EVENT_BYTES_MAX + 1:  # its last byte may be half of its end
                raise TritonBroken(f"an event is larger than {EVENT_BYTES_MAX} bytes")

    def _with_lf(self, data: bytes) -> bytes:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data


class EventReader:
    """Bytes in, JSON objects out."""

    __slots__ = ("_raw",)

    def __init__(self) -> None:
        self._raw = RawEvents()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events completed by `data`. Raises `TritonBroken` on anything that is not one."""
        return list(map(_object, self._raw.feed(data)))

    def finish(self) -> None:
        """The body has ended. Raises `TritonBroken` when it ended inside an event."""
        self._raw.finish()


def _data_of(block: bytes) -> bytes:
    lines = [line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b" ".join(lines).strip()


_decode = msgspec.json.Decoder().decode


def _object(data: bytes) -> dict[str, Any]:
    try:
        event = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as problem:
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
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        return str(document["error"])[:2000]
    return "the inference server refused the request"
