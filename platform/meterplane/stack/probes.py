"""How each kind of server says that it can be used. A probe answers within two seconds."""

from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from meterplane.stack.component import Probe, Running

PATIENCE_S = 2.0


def http(url: str, *, statuses: tuple[int, ...] = (200,)) -> Probe:
    """It answers GET `url` with one of `statuses`."""
    return lambda _running: http_status(url) in statuses


def logged(mark: bytes) -> Probe:
    """It has written `mark` to its log since it was started."""

    def probe(running: Running) -> bool:
        with running.log.open("rb") as log:
            log.seek(running.log_offset)
            return mark in log.read()

    return probe


def up_for(seconds: float) -> Probe:
    """It still runs after `seconds`: for what says nothing when it is ready."""
    return lambda running: running.uptime_s >= seconds


def http_status(url: str) -> int | None:
    """The status of GET `url`; None when nobody answers. No proxy, no redirect."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=PATIENCE_S)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
