"""How each kind of server says that it can be used. A probe answers within two seconds."""

from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from meterplane.stack import processes
from meterplane.stack.component import Probe, Running

PATIENCE_S = 2.0


def http(url: str) -> Probe:
    """The process itself listens on `url`'s port, and GET `url` is answered with 200.

    Somebody else may have taken the port since it was chosen, and answer well.
    """
    port = urlsplit(url).port or 80
    return lambda running: processes.listens(running.pid, port) and http_status(url) == 200


def logged(mark: bytes) -> Probe:
    """It has written `mark` to its log since it was started."""

    def probe(running: Running) -> bool:
        with running.log.open("rb") as log:
            log.seek(running.log_offset)
            return mark in log.read()

    return probe


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
